//! Runs tests that fork, and therefore each in a process of one thread.

use std::process::ExitCode;

/// A test and its name.
pub type Test = (&'static str, fn());

/// Answers nextest (`--list`, `--exact NAME`), or runs the tests whose names the arguments are part of.
pub fn run(tests: &[Test]) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let has = |flag: &str| words.iter().any(|word| word == flag);
    if has("--list") {
        // nextest asks twice, the second time for ignored tests alone; there are none.
        if !has("--ignored") {
            tests.iter().for_each(|(name, _)| println!("{name}: test"));
        }
        return ExitCode::SUCCESS;
    }
    let wanted: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let exact = has("--exact");
    let chosen = tests.iter().filter(|(name, _)| {
        wanted.is_empty()
            || wanted.iter().any(|word| if exact { word == name } else { name.contains(word.as_str()) })
    });
    let mut failed = 0;
    let mut count = 0;
    for (name, test) in chosen {
        count += 1;
        let passed = std::panic::catch_unwind(test).is_ok();
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        failed += usize::from(!passed);
    }
    println!("{} passed, {failed} failed", count - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
