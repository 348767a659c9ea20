//! The workflows in `.github` build for all that the manifests promise, by targets that the Makefile has.

use std::collections::BTreeSet;
use std::fs;

use super::sources::{files, top};

/// Each workflow: its name and its text.
fn workflows() -> Vec<(String, String)> {
    let paths = files(&top().join(".github/workflows"), &["yml"]);
    let name = |path: &std::path::Path| path.file_name().unwrap().to_string_lossy().into_owned();
    paths.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
}

#[test]
fn each_workflow_uses_each_python_that_the_wheel_is_for() {
    let manifest = fs::read_to_string(top().join("pyproject.toml")).unwrap();
    let manifest: toml::Table = manifest.parse().unwrap();
    let classifiers = manifest["project"]["classifiers"].as_array().unwrap().iter();
    let classifiers =
        classifiers.filter_map(|text| text.as_str()?.strip_prefix("Programming Language :: Python :: 3."));
    let mut wanted: Vec<_> = classifiers.map(|minor| format!("3.{minor}")).collect();
    assert_eq!(manifest["project"]["requires-python"].as_str(), Some(">=3.10"));
    assert_eq!(wanted.first().map(String::as_str), Some("3.10"));
    // The newest one has a free-threaded build.
    wanted.push(format!("{}t", wanted.last().unwrap()));
    for (name, text) in workflows() {
        let words: BTreeSet<_> = text.split(|c: char| c.is_whitespace() || "\"',[]".contains(c)).collect();
        let missing: Vec<_> = wanted.iter().filter(|version| !words.contains(version.as_str())).collect();
        assert!(missing.is_empty(), "{name} does not use CPython {missing:?}");
    }
}

#[test]
fn each_workflow_runs_on_linux_and_macos_on_both_machines() {
    for (name, text) in workflows() {
        for runner in ["ubuntu-24.04", "ubuntu-24.04-arm", "macos-15-intel", "macos-15"] {
            let is_there = |line: &str| line.split([' ', '[', ']', ',', '}']).any(|word| word == runner);
            assert!(text.lines().any(is_there), "{name} does not run on {runner}");
        }
    }
}

#[test]
fn the_targets_that_workflows_make_are_those_of_the_makefile() {
    let makefile = fs::read_to_string(top().join("Makefile")).unwrap();
    let mut count = 0;
    for (name, text) in workflows() {
        for line in text.lines().filter_map(|line| line.split_once("run: make ")) {
            let words = line.1.split(' ').take_while(|word| !word.contains('='));
            for target in words.filter(|word| !word.starts_with("--")) {
                let is_there = makefile.lines().any(|line| line.starts_with(&format!("{target}:")));
                assert!(is_there, "{name} makes {target}, which the Makefile lacks");
                count += 1;
            }
        }
    }
    assert!(count >= 5, "{count}");
}
