//! The parts of a command line of gunicorn, as a shell has split it.

use crate::args::UsageError;

/// A command line, taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Words {
    /// `NAME=VALUE` in front of it, without `GUNICORN_CMD_ARGS`.
    pub(super) variables: Vec<String>,
    /// The value of `GUNICORN_CMD_ARGS` in front of it.
    pub(super) arguments: Option<String>,
    /// The words of a command that executes gunicorn, such as `poetry run`.
    pub(super) wrapper: Vec<String>,
    /// The words behind the program.
    pub(super) options: Vec<String>,
}

impl Words {
    /// Takes a command line apart. A single word with spaces is a whole command line.
    ///
    /// # Errors
    /// No word of it is gunicorn.
    pub(super) fn of(given: &[String]) -> Result<Self, UsageError> {
        if let [line] = given {
            let parts = shlex::split(line).filter(|parts| parts.len() > 1);
            if let Some(parts) = parts {
                return Self::of(&parts);
            }
        }
        let mut words = Self::default();
        let mut rest = given;
        while let [word, behind @ ..] = rest {
            if let Some(options) = options_of_gunicorn(word, behind) {
                words.options = options.to_vec();
                return Ok(words);
            }
            words.take_before(word, behind);
            rest = behind;
        }
        Err(unknown())
    }

    /// Takes a word before the program.
    fn take_before(&mut self, word: &str, behind: &[String]) {
        let is_option = |word: &String| word.starts_with('-');
        match word.split_once('=') {
            _ if !self.wrapper.is_empty() => self.wrapper.push(word.to_owned()),
            Some(("GUNICORN_CMD_ARGS", value)) => self.arguments = Some(value.to_owned()),
            Some((name, _)) if is_variable(name) => self.variables.push(word.to_owned()),
            None if word == "exec" => {}
            None if word == "env" && !behind.first().is_some_and(is_option) => {}
            _ => self.wrapper.push(word.to_owned()),
        }
    }
}

/// The words behind gunicorn, if `word` or it with the words behind it executes gunicorn.
fn options_of_gunicorn<'a>(word: &str, behind: &'a [String]) -> Option<&'a [String]> {
    match file_name(word) {
        "gunicorn" | "gunicorn3" => Some(behind),
        program if program.starts_with("python") || program.starts_with("pypy") => {
            let module = behind.iter().position(|word| word == "-m" || !word.starts_with('-'))?;
            match behind.get(module..)? {
                [option, name, options @ ..] if option == "-m" && name == "gunicorn" => Some(options),
                _ => None,
            }
        }
        _ => None,
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
