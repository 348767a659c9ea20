//! Each folder uses only the folders above it in its list. The lists stand in docs/ARCHITECTURE.md.

use std::path::Path;

use super::sources::{CRATES, blocks, is_of_tests, modules, sources, src};
use super::tokens::{Token, code, parse, paths, tokens};

/// Paths that code without side effects does not name.
const WORLD: [&str; 19] = [
    "std::env",
    "std::fs",
    "std::io::stderr",
    "std::io::stdin",
    "std::io::stdout",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "libc",
    "log",
    "mcsup_core",
    "nix",
    "notify",
    "pyo3",
    "rustix",
    "socket2",
];

/// One line of a list: a folder or file of `src`.
struct Part {
    name: String,
    is_pure: bool,
    may_be_unsafe: bool,
    may_speak_http: bool,
}

/// The list of a crate: the first code block of its section, one part a line, its marks in brackets.
fn list(crate_name: &str) -> Vec<Part> {
    let block = blocks(&format!("## {crate_name}")).swap_remove(0);
    let lines = block.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()));
    let part = |line: &str| {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap();
        Part {
            name: name.trim_end_matches('/').to_owned(),
            is_pure: rest.contains("[pure]"),
            may_be_unsafe: rest.contains("[unsafe]"),
            may_speak_http: rest.contains("[http]"),
        }
    };
    lines.map(part).collect()
}

/// The paths of a file that a folder with this list may not name there.
fn wrong_paths(list: &[&str], modules: &[String], paths: Vec<Token>) -> Vec<Token> {
    let place = |name: &str| list.iter().position(|part| *part == name);
    let own = place(&modules[0]).unwrap_or_else(|| panic!("{} is in no list", modules[0]));
    let is_wrong = |path: &Token| {
        let used = path.text.strip_prefix("crate::").map(|rest| rest.split("::").next().unwrap_or_default());
        // Items of the crate's root may come from any folder, so only the last folder uses them.
        used.is_some_and(|used| place(used).unwrap_or(list.len() - 1) > own)
    };
    paths.into_iter().filter(is_wrong).collect()
}

/// The paths that lead out of a program, also those through an import of a part of them.
fn paths_to_the_world(paths: Vec<Token>) -> Vec<Token> {
    let is_within = |path: &str, outer: &str| format!("{path}::").starts_with(&format!("{outer}::"));
    let is_world = |path: &Token| {
        let path = path.text.trim_end_matches("::*");
        WORLD.iter().any(|world| is_within(path, world) || is_within(world, path))
    };
    paths.into_iter().filter(is_world).collect()
}

fn assert_none(path: &Path, found: &[Token], rule: &str) {
    let lines: Vec<_> = found.iter().map(|Token { text, line }| format!("{line}: {text}")).collect();
    assert!(found.is_empty(), "{}: {rule}:\n{}", path.display(), lines.join("\n"));
}

fn check_order(crate_name: &str) {
    let list = list(crate_name);
    let names: Vec<_> = list.iter().map(|part| part.name.as_str()).collect();
    let src = src(crate_name);
    for path in sources(&src) {
        let modules = modules(&src, &path);
        if !["lib", "main"].contains(&modules[0].as_str()) && !is_of_tests(&modules) {
            let wrong = wrong_paths(&names, &modules, paths(&code(&path), &modules));
            assert_none(&path, &wrong, "only what stands above it in its list");
        }
    }
}

#[test]
fn a_folder_uses_only_the_folders_above_it() {
    CRATES.into_iter().for_each(check_order);
}

#[test]
fn every_part_of_a_list_is_there() {
    for crate_name in CRATES {
        let src = src(crate_name);
        let list = list(crate_name);
        assert!(list.len() > 5, "{crate_name} has a list of {}", list.len());
        for Part { name, .. } in list {
            let is_there = src.join(&name).is_dir() || src.join(&name).with_extension("rs").exists();
            assert!(is_there, "{crate_name} has no {name}");
        }
    }
}

#[test]
fn pure_folders_have_no_side_effects() {
    let mut count = 0;
    for crate_name in CRATES {
        let src = src(crate_name);
        for part in list(crate_name).iter().filter(|part| part.is_pure) {
            count += 1;
            for path in sources(&src.join(&part.name)) {
                let modules = modules(&src, &path);
                if !is_of_tests(&modules) {
                    let found = paths_to_the_world(paths(&code(&path), &modules));
                    assert_none(&path, &found, "no side effects");
                }
            }
        }
    }
    assert_eq!(count, 6, "policy, trust, http, service, doctor and migrate are pure");
}

#[test]
fn unsafe_code_stays_in_its_folders() {
    for crate_name in CRATES {
        let list = list(crate_name);
        let may = |name: &str| list.iter().any(|part| part.name == name && part.may_be_unsafe);
        let src = src(crate_name);
        for path in sources(&src) {
            let is_allowed = modules(&src, &path).first().is_some_and(|part| may(part));
            let is_unsafe = |token: &Token| token.text.starts_with("unsafe");
            let found: Vec<_> = tokens(&code(&path)).into_iter().filter(is_unsafe).collect();
            assert!(is_allowed || found.is_empty(), "{}: {found:?}", path.display());
        }
    }
}

/// What the core knows nothing of.
const FOREIGN: [&str; 4] = ["http", "python", "pyo3", "wsgi"];

#[test]
fn core_has_no_word_of_http_or_python() {
    let (src, list) = (src("mcsup-core"), list("mcsup-core"));
    for path in sources(&src) {
        // A part that a feature adds, and that nothing else uses.
        let may = |name: &String| list.iter().any(|part| part.name == *name && part.may_speak_http);
        let words = if modules(&src, &path).first().is_some_and(may) { &FOREIGN[1..] } else { &FOREIGN[..] };
        let is_foreign = |token: &Token| {
            let lower = token.text.to_lowercase();
            words.iter().any(|word| lower.contains(word))
        };
        let found: Vec<_> = tokens(&code(&path)).into_iter().filter(is_foreign).collect();
        assert_none(&path, &found, "neither HTTP nor Python");
    }
}

/// The texts of the tokens that `check` finds in a file `crate::low::file`.
fn found(text: &str, check: impl Fn(&[String], Vec<Token>) -> Vec<Token>) -> Vec<String> {
    let modules = ["low".to_owned(), "file".to_owned()];
    let paths = paths(&parse(text).unwrap(), &modules);
    check(&modules, paths).into_iter().map(|token| token.text).collect()
}

#[test]
fn each_form_of_an_import_from_below_is_found() {
    let wrong = |text: &str| found(text, |modules, paths| wrong_paths(&["low", "high"], modules, paths));
    for text in [
        "use crate::high::A;",
        "use crate::{low::B, high::{self as h, A}};",
        "pub(super) use super::super::high::A;",
        "fn f() { super::super::high::f(); }",
        "mod inner { use super::super::super::high; }",
        "fn f() { assert!(matches!(x, crate::high::A { .. })); }",
        "#[cfg(test)] mod tests; use crate::high::A;",
        "use crate::ReExported;",
        "use crate::*;",
        "use crate as c;",
        "use super::super::*;",
    ] {
        assert_ne!(wrong(text), [""; 0], "{text}");
    }
    let right =
        "use crate::low::A; use super::other; use self::inner::B; use super::*; use std::fs; // crate::high
        #[cfg(test)] #[allow(unused)] mod tests { use crate::high::A; }
        #[cfg(all(test, unix))] pub(crate) use crate::high::B;";
    assert_eq!(wrong(right), [""; 0]);
}

#[test]
fn each_form_of_a_way_out_is_found() {
    let world = |text: &str| found(text, |_, paths| paths_to_the_world(paths));
    for text in [
        "use std::{fmt, fs};",
        "use std::time::{Duration, Instant};",
        "use std::time; fn f() { time::Instant::now(); }",
        "use std::{self as s};",
        "use std as s;",
        "use std::*;",
        "fn f() { log::info!(); }",
    ] {
        assert_ne!(world(text), [""; 0], "{text}");
    }
    assert_eq!(world("use std::time::Duration; use std::{fmt, io::Write}; use crate::log::A;"), [""; 0]);
}
