//! Files of environment variables: a line `NAME=VALUE` for each, as for `EnvironmentFile=` of systemd.exec(5).
//!
//! Empty lines and those that begin with `#` are skipped, `export ` before a name too. A value in single quotes is taken
//! as it is; in double quotes `\"`, `\\`, `\$`, `` \` `` and `\n` are escapes. Variables are not replaced, so a file
//! means the same everywhere.

use std::path::PathBuf;

use super::{ReadFile, Sourced};
use crate::args::UsageError;
use crate::values;

/// The variables of the files, in their order, below `own`: of several of one name the last counts.
pub(super) fn below(
    files: &Sourced<Vec<PathBuf>>,
    own: Sourced<Vec<(String, String)>>,
    read_file: &ReadFile<'_>,
) -> Result<Sourced<Vec<(String, String)>>, UsageError> {
    let mut variables = Vec::new();
    for path in &files.value {
        let name = path.display();
        let text = read_file(path).map_err(|error| {
            UsageError::new(format!("env_file (from {}): cannot read {name}: {error}", files.origin))
        })?;
        for (number, line) in (1..).zip(text.lines()) {
            let parsed = variable(line);
            let parsed = parsed.map_err(|reason| UsageError::new(format!("{name}:{number}: {reason}")))?;
            variables.extend(parsed);
        }
    }
    let origin = if own.value.is_empty() { files.origin.clone() } else { own.origin };
    variables.extend(own.value);
    Ok(Sourced { value: variables, origin })
}

/// Parses a line; `None`: it has no variable. The reason for a refusal never shows a value, which may be a secret.
fn variable(line: &str) -> Result<Option<(String, String)>, String> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let line = line.strip_prefix("export ").map_or(line, str::trim_start);
    let (name, value) = values::variable(line)?;
    let is_name = |c: char| c == '_' || c.is_ascii_alphanumeric();
    if !name.chars().all(is_name) || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err(format!("{name:?} cannot be a variable's name"));
    }
    let value = unquoted(value.trim()).ok_or_else(|| format!("the quote of {name} has no end"))?;
    if value.contains('\0') {
        return Err(format!("{name} holds a null character"));
    }
    Ok(Some((name, value)))
}

/// The value without its quotes; `None`: one is missing, or text follows it.
fn unquoted(value: &str) -> Option<String> {
    if let Some(rest) = value.strip_prefix('\'') {
        return rest.strip_suffix('\'').filter(|inner| !inner.contains('\'')).map(str::to_owned);
    }
    let Some(rest) = value.strip_prefix('"') else { return Some(value.to_owned()) };
    let (mut text, mut rest) = (String::new(), rest.chars());
    loop {
        match rest.next()? {
            '"' => return rest.as_str().is_empty().then_some(text),
            '\\' => match rest.next()? {
                'n' => text.push('\n'),
                escaped @ ('"' | '\\' | '$' | '`') => text.push(escaped),
                other => text.extend(['\\', other]),
            },
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Origin;
    use super::*;

    #[test]
    fn a_line_is_a_variable_or_nothing() {
        for (line, expected) in [
            ("A=1", Some(("A", "1"))),
            ("export _b2=c=d ", Some(("_b2", "c=d"))),
            ("A=", Some(("A", ""))),
            ("A='it is # no \"comment\" $HOME'", Some(("A", "it is # no \"comment\" $HOME"))),
            ("A=\"two\\nlines \\\"\\\\\\$\\x\"", Some(("A", "two\nlines \"\\$\\x"))),
            ("# A=1", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, value)| (name.to_owned(), value.to_owned()));
            assert_eq!(variable(line), Ok(expected), "{line}");
        }
        for line in [
            "A",
            "  export _b2 = c=d ",
            "=1",
            "A B=1",
            "1A=1",
            "A='5ecret",
            "A=\"5ecret",
            "A=\"x\"5ecret",
            "A=5ecret\0",
        ] {
            let reason = variable(line).unwrap_err();
            assert!(!reason.contains("5ecret"), "a value may be a secret: {reason}");
        }
    }

    #[test]
    fn a_variable_of_the_command_line_is_above_those_of_files() {
        let files = Sourced { value: vec!["a.env".into(), "b.env".into()], origin: Origin::CommandLine };
        let own = Sourced { value: vec![("A".to_owned(), "own".to_owned())], origin: Origin::CommandLine };
        let read = |path: &std::path::Path| match path.to_str() {
            Some("a.env") => Ok("A=1\nB=1\n".to_owned()),
            _ => Ok("B=2\n".to_owned()),
        };
        let found = below(&files, own, &read).unwrap().value;
        let found: Vec<String> = found.iter().map(|(name, value)| format!("{name}={value}")).collect();
        assert_eq!(found, ["A=1", "B=1", "B=2", "A=own"]);
    }

    #[test]
    fn an_error_names_the_file_and_the_line() {
        let files = Sourced { value: vec!["a.env".into()], origin: Origin::CommandLine };
        let own = || Sourced { value: Vec::new(), origin: Origin::Default };
        let error = below(&files, own(), &|_| Ok("A=1\n\noops\n".to_owned())).unwrap_err();
        assert_eq!(error.to_string(), "a.env:3: expected NAME=VALUE");
        let absent = |_: &std::path::Path| Err(std::io::ErrorKind::NotFound.into());
        let error = below(&files, own(), &absent).unwrap_err().to_string();
        assert!(error.starts_with("env_file (from the command line): cannot read a.env: "), "{error}");
    }
}
