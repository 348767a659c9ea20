//! The calls in `mcsup-core/src/policy` go from the machine to the parts, and from these to the facts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use super::sources::{blocks, modules, src};
use super::tokens::{Token, code, parse, paths, tokens};

/// The files with the facts that no part changes.
const FACTS: [&str; 4] = ["pool", "table", "state", "status"];

/// A row of the list in docs/ARCHITECTURE.md: files without their ending.
fn row(name: &str) -> Vec<String> {
    let block = blocks("### Calls within `policy/`").swap_remove(0);
    let row =
        block.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no row {name}"));
    row.split_whitespace().map(str::to_owned).collect()
}

fn policy() -> PathBuf {
    src("mcsup-core").join("policy")
}

/// The path of a file of the machine.
fn machine_file(name: &str) -> PathBuf {
    let folder = if name == "machine" { policy() } else { policy().join("machine") };
    folder.join(name).with_extension("rs")
}

/// The tokens of all files of the machine, in the order of their row.
fn machine() -> Vec<(String, Vec<Token>)> {
    let with_tokens = |name: String| {
        let tokens = tokens(&code(&machine_file(&name)));
        (name, tokens)
    };
    row("machine").into_iter().map(with_tokens).collect()
}

/// The facts and the parts, with their tokens.
fn others() -> Vec<(String, Vec<Token>)> {
    let names = row("facts").into_iter().chain(row("parts"));
    let with_tokens = |name: String| {
        let tokens = tokens(&code(&policy().join(&name).with_extension("rs")));
        (name, tokens)
    };
    names.map(with_tokens).collect()
}

/// The names of the files in a folder, without their ending.
fn files(folder: &Path) -> BTreeSet<String> {
    let paths = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let sources = paths.filter(|path| path.extension().is_some_and(|extension| extension == "rs"));
    sources.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
}

/// The tokens behind each of these words.
fn behind<'a>(tokens: &'a [Token], words: &[&str]) -> Vec<&'a str> {
    let pairs = tokens.windows(2).filter(|pair| words.contains(&pair[0].text.as_str()));
    pairs.map(|pair| pair[1].text.as_str()).collect()
}

/// The lines in which these tokens follow each other.
fn lines_with(tokens: &[Token], words: &[&str]) -> Vec<usize> {
    let is_there = |window: &&[Token]| window.iter().zip(words).all(|(token, word)| token.text == *word);
    tokens.windows(words.len()).filter(is_there).map(|window| window[0].line).collect()
}

#[test]
fn each_file_of_the_policy_is_in_one_row() {
    let rows = [row("facts"), row("parts"), vec!["machine".to_owned(), "mod".to_owned()]].concat();
    assert_eq!(rows.len(), rows.iter().collect::<BTreeSet<_>>().len());
    assert_eq!(files(&policy()), rows.into_iter().collect());
    let machine: BTreeSet<_> = row("machine").into_iter().filter(|name| name != "machine").collect();
    assert_eq!(files(&policy().join("machine")), machine);
}

/// The paths to a file that stands neither before `own` nor, if `own` is a part, among the facts.
fn wrong_paths(facts: &[String], own: &str, paths: Vec<Token>) -> Vec<Token> {
    let above = facts.iter().position(|name| name == own).map_or(facts, |place| &facts[..place]);
    let is_wrong = |path: &Token| {
        let used = path.text.strip_prefix("crate::policy::").and_then(|rest| rest.split("::").next());
        used.is_some_and(|used| used != own && !above.iter().any(|name| name == used))
    };
    paths.into_iter().filter(is_wrong).collect()
}

#[test]
fn a_part_uses_the_facts_and_no_other_part() {
    let facts = row("facts");
    for name in facts.iter().chain(&row("parts")) {
        let path = policy().join(name).with_extension("rs");
        let wrong = wrong_paths(&facts, name, paths(&code(&path), &modules(&src("mcsup-core"), &path)));
        assert!(wrong.is_empty(), "{name} uses what does not stand above it: {wrong:?}");
    }
}

/// The ways of these tokens to change the facts: a mutable reference to one of `types`, or code of the machine.
fn changes(tokens: &[Token], types: &BTreeSet<String>) -> Vec<String> {
    // A lifetime is a sign and a name.
    let is_mutable = |at: usize| {
        let before: Vec<_> =
            tokens[at.saturating_sub(4)..at].iter().map(|token| token.text.as_str()).collect();
        before.ends_with(&["&", "mut"]) || matches!(before[..], ["&", "'", _, "mut"])
    };
    let is_change = |at: &usize| {
        let text = &tokens[*at].text;
        text == "Machine" || types.contains(text) && is_mutable(*at)
    };
    (0..tokens.len())
        .filter(is_change)
        .map(|at| format!("{}: {}", tokens[at].line, tokens[at].text))
        .collect()
}

#[test]
fn the_machine_alone_changes_the_facts() {
    let others = others();
    let types_of = |tokens| behind(tokens, &["struct", "enum"]).into_iter().map(str::to_owned);
    let mut types = BTreeMap::new();
    for (name, tokens) in others.iter().filter(|(name, _)| FACTS.contains(&name.as_str())) {
        types.extend(types_of(tokens).map(|declared| (declared, name.clone())));
    }
    assert!(types.len() >= FACTS.len(), "{types:?}");
    for (name, tokens) in &others {
        let of_others = types.iter().filter(|(_, file)| *file != name).map(|(declared, _)| declared.clone());
        let found = changes(tokens, &of_others.collect());
        assert!(found.is_empty(), "{name} can change the facts: {found:?}");
    }
}

/// The lines that assign the phase, or pass a part of the facts to a function that may change it.
fn hidden_changes(tokens: &[Token]) -> Vec<usize> {
    let assignments = lines_with(tokens, &[".", "phase", "="]);
    let passed = ["(", ","].map(|before| lines_with(tokens, &[before, "&", "mut", "self", ".", "pool"]));
    assignments.into_iter().chain(passed.concat()).collect()
}

#[test]
fn one_function_enters_a_phase() {
    for (name, tokens) in machine().into_iter().chain(others()) {
        let found = hidden_changes(&tokens);
        assert_eq!(found.len(), usize::from(name == "acts"), "{name} changes a fact by itself: {found:?}");
    }
}

/// The methods of the machine, each with the place of its file. `shared`: names that the facts or parts have too.
struct Methods<'a> {
    places: BTreeMap<&'a str, usize>,
    shared: BTreeSet<&'a str>,
}

impl Methods<'_> {
    /// The place and the name of each method that these tokens name: by `self`, or by any value if the name is the
    /// machine's alone.
    fn named<'t>(&self, tokens: &'t [Token]) -> Vec<(usize, &'t Token)> {
        let named = |window: &'t [Token]| {
            let [before, owner, sign, name, next] = window else { return None };
            let is_machine = ["self", "Self", "Machine", "machine"].contains(&owner.text.as_str());
            let is_own = before.text != "." && is_machine;
            let counts = match sign.text.as_str() {
                "::" => is_own,
                "." => next.text == "(" && (is_own || !self.shared.contains(name.text.as_str())),
                _ => false,
            };
            let place = self.places.get(name.text.as_str()).copied();
            place.filter(|_| counts).map(|place| (place, name))
        };
        tokens.windows(5).filter_map(named).collect()
    }
}

#[test]
fn the_calls_within_the_machine_go_one_way() {
    let (machine, others) = (machine(), others());
    let mut methods = Methods { places: BTreeMap::new(), shared: BTreeSet::new() };
    for (place, (file, tokens)) in machine.iter().enumerate() {
        for name in behind(tokens, &["fn"]) {
            let other = methods.places.insert(name, place);
            assert!(other.is_none_or(|other| other == place), "{name} is in {file} and in another file");
        }
    }
    let is_of_machine = |name: &&str| methods.places.contains_key(name);
    methods.shared =
        others.iter().flat_map(|(_, tokens)| behind(tokens, &["fn"])).filter(is_of_machine).collect();
    let mut calls = 0;
    for (place, (file, tokens)) in machine.iter().enumerate() {
        for (other, Token { text, line }) in methods.named(tokens) {
            calls += 1;
            assert!(other <= place, "{file}:{line} calls {text} of {}, which is below it", machine[other].0);
        }
    }
    assert!(calls > 100, "{calls} calls are too few to be all");
}

#[test]
fn each_form_of_a_call_or_change_is_found() {
    let tokens = |text: &str| tokens(&parse(text).unwrap());
    let methods = Methods { places: [("enter", 1), ("settle", 1)].into(), shared: ["settle"].into() };
    for text in [
        "fn f() { self\n.enter(); }",
        "fn f() { Self::enter(self); }",
        "fn f() { let g = Machine::settle; }",
        "fn f() { machine.settle(); }",
        "fn f() { self.inner.enter(); }",
    ] {
        assert_eq!(methods.named(&tokens(text)).len(), 1, "{text}");
    }
    assert_eq!(methods.named(&tokens("fn f() { self.scaler.settle(); } // self.enter()")), []);
    for text in ["fn f(p: &mut Pool) {}", "struct A<'a>(&'a mut Pool);", "impl Machine {}"] {
        assert_eq!(changes(&tokens(text), &["Pool".to_owned()].into()).len(), 1, "{text}");
    }
    assert_eq!(changes(&tokens("fn f(&mut self, p: &Pool) {}"), &["Pool".to_owned()].into()), [""; 0]);
    for text in ["self.pool.phase = phase;", "f(a, &mut self.pool.size);", "replace(&mut self.pool.phase, a)"]
    {
        assert_eq!(hidden_changes(&tokens(text)).len(), 1, "{text}");
    }
    assert_eq!(hidden_changes(&tokens("let a = self.pool.phase == phase;")), [0; 0]);
    let facts = ["event", "pool"].map(str::to_owned);
    let wrong = |text: &str| {
        wrong_paths(&facts, "scale", paths(&parse(text).unwrap(), &["policy".into(), "scale".into()]))
    };
    for text in
        ["use super::{event::A, molds::B};", "use crate::policy::Machine;", "fn f() { super::molds::g() }"]
    {
        assert_eq!(wrong(text).len(), 1, "{text}");
    }
    assert_eq!(wrong("use super::pool::A; use super::scale::B; use crate::error::C;"), []);
}
