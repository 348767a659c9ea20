use std::collections::HashMap;

use super::*;

#[test]
fn every_name_is_that_of_one_setting() {
    let mut owners = HashMap::new();
    for row in rows() {
        let keys: std::collections::BTreeSet<String> = row.keys().collect();
        for key in keys {
            assert_eq!(owners.insert(key.clone(), row.name), None, "{key}");
        }
    }
    let shorts: Vec<char> = rows().filter_map(|row| row.short).collect();
    let distinct: std::collections::BTreeSet<&char> = shorts.iter().collect();
    assert_eq!(distinct.len(), shorts.len());
}

#[test]
fn a_row_is_whole() {
    for row in rows() {
        let name = row.name;
        assert!(!row.help.is_empty() && !row.since.is_empty(), "{name}");
        assert!(row.help.starts_with(char::is_uppercase) && !row.help.ends_with('.'), "{name}: {}", row.help);
        assert_eq!(row.value_name.is_empty(), matches!(row.kind, Kind::Flag | Kind::Hook), "{name}");
        assert!(row.default.is_none() || row.default_in_words.is_empty(), "{name} has two defaults");
        assert!(!row.flag.contains('_') && !name.contains('-'), "{name}");
        if let State::Ignored(reason) | State::Refused(reason) = row.state {
            assert!(!reason.is_empty() && !row.gunicorn.is_empty(), "{name}");
        }
    }
}

#[test]
fn each_word_that_a_shell_completes_is_a_value() {
    for row in rows().filter(|row| row.scope != Scope::Program) {
        for word in row.words {
            let given = Given::one(row, (*word).to_owned());
            let resolved = crate::settings::Settings::resolve(given, &|_| None, &|_| unreachable!());
            let needs_another = row.name == "trusted_hops_field";
            assert!(resolved.is_ok() || needs_another, "{} {word}: {resolved:?}", row.name);
        }
        assert!(row.default.is_none_or(|default| row.words.is_empty() || row.words.contains(&default)));
    }
}

#[test]
fn each_variable_of_a_setting_is_on_the_pages_that_list_them() {
    let pages = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    // A crate that was packaged alone has no pages beside it.
    for page in ["../README.md", "CONF.md", "FROM_GUNICORN.md"].iter().filter(|_| pages.exists()) {
        let text = std::fs::read_to_string(pages.join(page)).unwrap();
        for variable in rows().filter_map(|row| row.variable) {
            assert!(text.contains(&format!("`{variable}`")), "{variable} is not in {page}");
        }
    }
}

#[test]
fn each_hook_has_a_row() {
    let hooks = rows().filter(|row| row.kind == Kind::Hook).map(|row| row.name);
    // mcsup has no dirty workers.
    let rows: std::collections::BTreeSet<_> = hooks.filter(|name| !name.contains("dirty")).collect();
    assert_eq!(rows, mcsup_py::conf::HOOKS.iter().map(|(name, _)| *name).collect());
}

#[test]
fn a_key_is_found_by_each_of_its_names() {
    for key in ["error_logfile", "error-logfile", "log_file", "errorlog"] {
        assert_eq!(by_key(key).map(|row| row.name), Some("error_logfile"), "{key}");
    }
    assert!(by_key("config").is_none() && by_key("ready").is_none());
    assert_eq!(nearest_key("wrokers").as_deref(), Some("workers"));
    assert_eq!(nearest_key("rollout"), None);
}

/// Compares a page with its text, or writes it if `MCSUP_WRITE` is set.
fn compare(page: &str, text: &str) {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(page);
    // A crate that was packaged alone has no pages beside it.
    if !path.parent().is_some_and(std::path::Path::exists) {
        return;
    }
    if std::env::var_os("MCSUP_WRITE").is_some() {
        std::fs::write(&path, text).unwrap();
    }
    let found = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(found == text, "{page} is stale: MCSUP_WRITE=1 cargo test -p mcsup-cli the_page_of_settings");
}

#[test]
fn the_page_of_settings_is_that_of_the_table() {
    compare("SETTINGS.md", &page::settings());
}

#[test]
fn the_page_of_settings_of_gunicorn_has_the_rows_of_the_table() {
    const MARKS: (&str, &str) = ("<!-- settings -->\n", "<!-- end of settings -->\n");
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/FROM_GUNICORN.md");
    let Ok(found) = std::fs::read_to_string(path) else { return };
    let (before, rest) = found.split_once(MARKS.0).expect("a mark where the table begins");
    let (_, behind) = rest.split_once(MARKS.1).expect("a mark where the table ends");
    let text = page::of_gunicorn();
    compare("FROM_GUNICORN.md", &format!("{before}{}{text}{}{behind}", MARKS.0, MARKS.1));
}
