//! Sources as tokens: no comments, no items for tests, and each path from the root of its crate.

use std::fs;
use std::iter::Peekable;
use std::path::Path;

use proc_macro2::token_stream::IntoIter;
use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// The first words of an item, behind its attributes.
const ITEMS: [&str; 14] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "use",
];

/// Two signs that are one token.
const OPERATORS: [&str; 7] = ["::", "->", "=>", "==", "!=", "<=", ">="];

/// A token or a path, and its line.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Token {
    pub(crate) text: String,
    pub(crate) line: usize,
}

/// The code of a file, without comments and without the items for tests.
pub(crate) fn code(path: &Path) -> TokenStream {
    let text = fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    parse(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

pub(crate) fn parse(text: &str) -> Result<TokenStream, proc_macro2::LexError> {
    text.parse().map(product)
}

/// An attribute between the brackets, without spaces.
fn attribute(tree: Option<&TokenTree>) -> Option<String> {
    let Some(TokenTree::Group(group)) = tree else { return None };
    (group.delimiter() == Delimiter::Bracket).then(|| group.stream().to_string().replace(' ', ""))
}

fn is_sign(tree: Option<&TokenTree>, sign: char) -> bool {
    matches!(tree, Some(TokenTree::Punct(punct)) if punct.as_char() == sign)
}

/// Drops documentation, and each item behind `#[cfg(test)]`.
fn product(code: TokenStream) -> TokenStream {
    let mut kept = Vec::new();
    let mut trees = code.into_iter().peekable();
    while let Some(tree) = trees.next() {
        let attribute = if is_sign(Some(&tree), '#') {
            trees.next_if(|next| is_sign(Some(next), '!'));
            attribute(trees.peek())
        } else {
            None
        };
        match attribute {
            Some(text) if text.starts_with("doc=") => drop(trees.next()),
            Some(text) if text == "cfg(test)" || text.starts_with("cfg(all(test,") => {
                trees.next();
                skip_item(&mut trees);
            }
            _ => kept.push(match tree {
                TokenTree::Group(group) => {
                    let mut inside = proc_macro2::Group::new(group.delimiter(), product(group.stream()));
                    inside.set_span(group.span());
                    inside.into()
                }
                other => other,
            }),
        }
    }
    kept.into_iter().collect()
}

/// An item ends with its block or semicolon. What is left of `use a::{b};` is the semicolon.
fn skip_item(trees: &mut Peekable<IntoIter>) {
    while is_sign(trees.peek(), '#') {
        trees.next();
        trees.next();
    }
    let first = trees.peek().map(ToString::to_string).unwrap_or_default();
    assert!(ITEMS.contains(&first.as_str()), "`#[cfg(test)]` before {first}: this reader skips items only");
    for tree in trees.by_ref() {
        let is_block = matches!(&tree, TokenTree::Group(group) if group.delimiter() == Delimiter::Brace);
        if is_block || is_sign(Some(&tree), ';') {
            break;
        }
    }
}

/// The tokens in order, with the delimiters of groups.
pub(crate) fn tokens(code: &TokenStream) -> Vec<Token> {
    let mut found = Vec::new();
    flatten(code, &mut found);
    found
}

fn flatten(code: &TokenStream, found: &mut Vec<Token>) {
    let mut is_joint = false;
    for tree in code.clone() {
        let line = tree.span().start().line;
        let was_joint = std::mem::replace(&mut is_joint, false);
        match tree {
            TokenTree::Group(group) => {
                let (open, close) = match group.delimiter() {
                    Delimiter::Parenthesis => ("(", ")"),
                    Delimiter::Brace => ("{", "}"),
                    Delimiter::Bracket => ("[", "]"),
                    Delimiter::None => ("", ""),
                };
                found.push(Token { text: open.to_owned(), line });
                flatten(&group.stream(), found);
                found.push(Token { text: close.to_owned(), line: group.span_close().start().line });
            }
            TokenTree::Punct(punct) => {
                is_joint = punct.spacing() == proc_macro2::Spacing::Joint;
                let last = found.last_mut().filter(|_| was_joint);
                match last.map(|last| (format!("{}{}", last.text, punct.as_char()), last)) {
                    Some((both, last)) if OPERATORS.contains(&both.as_str()) => last.text = both,
                    _ => found.push(Token { text: punct.to_string(), line }),
                }
            }
            other => found.push(Token { text: other.to_string(), line }),
        }
    }
}

/// The paths in the code of a module, those of a `use` with braces one by one. `crate`, `self` and `super` are resolved.
pub(crate) fn paths(code: &TokenStream, modules: &[String]) -> Vec<Token> {
    let mut found = Vec::new();
    collect(code, modules, &[], &mut found);
    found
}

fn collect(code: &TokenStream, modules: &[String], prefix: &[String], found: &mut Vec<Token>) {
    let (mut path, mut inner) = (prefix.to_vec(), None);
    let mut trees = code.clone().into_iter().peekable();
    while let Some(tree) = trees.next() {
        let line = tree.span().start().line;
        match tree {
            TokenTree::Ident(name) if name == "as" && !prefix.is_empty() => drop(trees.next()),
            TokenTree::Ident(name) if name == "mod" => inner = trees.peek().map(ToString::to_string),
            TokenTree::Ident(name) => {
                path.push(name.to_string());
                let is_whole = !is_sign(trees.peek(), ':') || {
                    trees.next();
                    trees.next_if(|next| is_sign(Some(next), ':')).is_none()
                };
                // A path ends before `<` and the like.
                let goes_on = match trees.peek() {
                    Some(TokenTree::Ident(_)) => !is_whole,
                    Some(TokenTree::Group(group)) => !is_whole && group.delimiter() == Delimiter::Brace,
                    _ => false,
                };
                // All of a module, by `*` or by another name.
                let is_renamed = matches!(trees.peek(), Some(TokenTree::Ident(next)) if next == "as");
                if is_renamed || !is_whole && is_sign(trees.peek(), '*') {
                    path.push("*".to_owned());
                }
                if !goes_on {
                    add(&path, modules, line, found);
                    path = prefix.to_vec();
                }
            }
            TokenTree::Group(group) => {
                let below: Vec<_> = modules.iter().cloned().chain(inner.take()).collect();
                collect(&group.stream(), &below, &path, found);
                path = prefix.to_vec();
            }
            TokenTree::Punct(punct) if punct.as_char() == ';' => inner = None,
            _ => {}
        }
    }
}

/// Adds a path of two words or more.
fn add(path: &[String], modules: &[String], line: usize, found: &mut Vec<Token>) {
    let up = path.iter().take_while(|name| *name == "super").count();
    let mut words = path.iter().filter(|name| !["self", "super", "crate"].contains(&name.as_str()));
    let own = match path[0].as_str() {
        "crate" => &[],
        "self" | "super" => {
            let up =
                up + path.iter().skip(1).take_while(|name| path[0] == "self" && *name == "super").count();
            &modules[..modules.len().saturating_sub(up)]
        }
        _ => {
            let text = words.by_ref().cloned().collect::<Vec<_>>().join("::");
            found.extend((path.len() > 1).then_some(Token { text, line }));
            return;
        }
    };
    if path.len() > 1 {
        let text =
            ["crate".to_owned()].iter().chain(own).chain(words).cloned().collect::<Vec<_>>().join("::");
        found.push(Token { text, line });
    }
}
