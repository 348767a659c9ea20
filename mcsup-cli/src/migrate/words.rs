//! The parts of a command line of gunicorn, as a shell has split it.

use crate::args::UsageError;

/// Words that may stand before the program.
const BEFORE: [&str; 2] = ["exec", "env"];

/// A command line, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// `NAME=VALUE` in front of it, without `GUNICORN_CMD_ARGS`.
    pub(super) variables: Vec<String>,
    /// The value of `GUNICORN_CMD_ARGS` in front of it.
    pub(super) arguments: Option<String>,
    /// The words behind the program.
    pub(super) options: Vec<String>,
}

impl Words {
    /// Takes a command line apart.
    ///
    /// # Errors
    /// Its program is not gunicorn.
    pub(super) fn of(given: &[String]) -> Result<Self, UsageError> {
        let mut words = Self::default();
        let mut rest = given.iter();
        let program = loop {
            let word = rest.next().ok_or_else(unknown)?;
            match word.split_once('=') {
                Some(("GUNICORN_CMD_ARGS", value)) => words.arguments = Some(value.to_owned()),
                Some((name, _)) if is_variable(name) => words.variables.push(word.clone()),
                _ if BEFORE.contains(&word.as_str()) => {}
                _ => break file_name(word),
            }
        };
        let is_gunicorn = match program {
            "gunicorn" | "gunicorn3" => true,
            _ if program.starts_with("python") || program.starts_with("pypy") => {
                let module: Vec<&str> = rest.by_ref().take(2).map(String::as_str).collect();
                module == ["-m", "gunicorn"]
            }
            _ => false,
        };
        words.options = rest.cloned().collect();
        if is_gunicorn { Ok(words) } else { Err(unknown()) }
    }
}

fn unknown() -> UsageError {
    UsageError::new(
        "expected `gunicorn OPTIONS APP` or `python -m gunicorn OPTIONS APP`, such as: mcsup migrate -- gunicorn -w 4 \
         app:app",
    )
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

fn is_variable(name: &str) -> bool {
    !name.is_empty() && name.chars().all(|c| c == '_' || c.is_ascii_alphanumeric())
}

/// A word as a shell reads it. The value of a variable is quoted alone; `None`: it holds a null character.
pub(super) fn quoted(word: &str) -> Option<String> {
    match word.split_once('=') {
        Some((name, value)) if is_variable(name) => Some(format!("{name}={}", shlex::try_quote(value).ok()?)),
        _ => shlex::try_quote(word).ok().map(Into::into),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_is_quoted_where_a_shell_would_change_it() {
        for word in ["a", "A=b", "A=b c", "it's", "--name=a b", "$HOME", "", "A=", "app:make('x')"] {
            let quoted = quoted(word).unwrap();
            assert_eq!(shlex::split(&quoted), Some(vec![word.to_owned()]), "{quoted}");
        }
        assert_eq!(quoted("A=b c").as_deref(), Some("A='b c'"));
        assert_eq!(quoted("a\0"), None);
    }
}
