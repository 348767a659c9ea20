//! The watcher on real files, with each engine.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::hints::Unable;
use super::{ReloadEngine, Watcher};

const ENGINES: [ReloadEngine; 3] = [ReloadEngine::Auto, ReloadEngine::Inotify, ReloadEngine::Poll];
/// Longer than any test waits for what does come.
const PATIENCE: Duration = Duration::from_secs(10);
/// What is waited for what must not come, since there is nothing else to observe.
const MOMENT: Duration = Duration::from_millis(400);

struct Place {
    _directory: tempfile::TempDir,
    top: PathBuf,
}

impl Place {
    /// A directory with an application in it.
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        // Not where a link leads to it, as on macOS.
        let top = directory.path().canonicalize().unwrap();
        let place = Self { _directory: directory, top };
        place.write("app.py", "one");
        place
    }

    fn at(&self, name: &str) -> PathBuf {
        self.top.join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::create_dir_all(self.at(name).parent().unwrap()).unwrap();
        fs::write(self.at(name), text).unwrap();
    }

    /// A watcher that has seen the application loaded.
    fn watch(&self, engine: ReloadEngine, extra: &[&str]) -> Watcher {
        let mut watcher = Watcher::within(&self.top, extra, engine, Duration::from_millis(20));
        watcher.add_files([self.at("app.py")]);
        watcher
    }
}

#[track_caller]
fn expect(watcher: &mut Watcher, reason: &str) {
    assert_eq!(watcher.wait_for(PATIENCE).as_deref(), Some(reason), "{watcher:?}");
}

#[track_caller]
fn expect_nothing(watcher: &mut Watcher) {
    assert_eq!(watcher.wait_for(MOMENT), None, "{watcher:?}");
}

fn with_each_engine(test: impl Fn(ReloadEngine, &Place)) {
    for engine in ENGINES {
        test(engine, &Place::new());
    }
}

/// A later time than the file has, with the same content.
fn touch(path: &Path) {
    let file = fs::File::options().append(true).open(path).unwrap();
    let later = file.metadata().unwrap().modified().unwrap() + Duration::from_millis(10);
    file.set_modified(later).unwrap();
}

#[test]
fn a_file_that_is_written_replaced_or_touched_has_changed() {
    with_each_engine(|engine, place| {
        let mut watcher = place.watch(engine, &[]);
        place.write("app.py", "two!");
        expect(&mut watcher, "app.py has changed");
        place.write(".app.py.new", "six!");
        fs::rename(place.at(".app.py.new"), place.at("app.py")).unwrap();
        expect(&mut watcher, "app.py has changed");
        place.write("app.py", "written after it was replaced");
        expect(&mut watcher, "app.py has changed");
        touch(&place.at("app.py"));
        expect(&mut watcher, "app.py has changed");
        expect_nothing(&mut watcher);
    });
}

#[test]
fn a_loaded_file_that_goes_has_changed_and_so_it_has_when_it_comes_back() {
    with_each_engine(|engine, place| {
        let mut watcher = place.watch(engine, &[]);
        fs::remove_file(place.at("app.py")).unwrap();
        expect(&mut watcher, "app.py has changed");
        place.write("app.py", "two");
        expect(&mut watcher, "app.py has changed");
    });
}

#[test]
fn a_burst_is_one_change() {
    with_each_engine(|engine, place| {
        let mut watcher = place.watch(engine, &[]);
        for round in 0..20 {
            place.write("app.py", &"x".repeat(round));
            place.write(&format!("module_{}.py", round % 3), &"x".repeat(round));
        }
        expect(&mut watcher, "app.py has changed and 3 more");
        expect_nothing(&mut watcher);
    });
}

#[test]
fn python_files_that_appear_beside_it_count_and_other_files_do_not() {
    with_each_engine(|engine, place| {
        let mut watcher = place.watch(engine, &[]);
        place.write("app.log", "a line");
        place.write(".#app.py", "an editor's");
        place.write("app.py~", "an editor's");
        place.write("__pycache__/app.cpython-312.pyc", "Python's");
        place.write("deeper/other.py", "nobody's");
        fs::read(place.at("app.py")).unwrap();
        expect_nothing(&mut watcher);
        place.write("new.py", "new");
        expect(&mut watcher, "new.py has changed");
        // It is not loaded.
        fs::remove_file(place.at("new.py")).unwrap();
        expect_nothing(&mut watcher);
    });
}

#[test]
fn what_is_loaded_later_counts_from_then_on() {
    with_each_engine(|engine, place| {
        place.write("package/late.py", "one");
        let mut watcher = place.watch(engine, &[]);
        place.write("package/late.py", "not loaded yet");
        expect_nothing(&mut watcher);
        watcher.add_files([place.at("package/late.py")]);
        expect_nothing(&mut watcher);
        place.write("package/late.py", "changed");
        expect(&mut watcher, "package/late.py has changed");
    });
}

#[test]
fn what_changed_while_other_files_were_learned_is_not_forgotten() {
    with_each_engine(|engine, place| {
        place.write("package/late.py", "one");
        let mut watcher = place.watch(engine, &[]);
        place.write("app.py", "changed");
        watcher.add_files([place.at("package/late.py")]);
        expect(&mut watcher, "app.py has changed");
        place.write("package/later.py", "beside a file that was loaded");
        watcher.add_files([place.at("package/other.py")]);
        expect(&mut watcher, "package/later.py has changed");
    });
}

#[test]
fn what_comes_to_be_while_other_files_are_learned_is_not_taken_for_old() {
    with_each_engine(|engine, place| {
        let mut watcher = Watcher::within(
            &place.top,
            &["settings.toml", "templates/*/*.html"],
            engine,
            Duration::from_millis(20),
        );
        watcher.add_folder(&place.top);
        place.write("settings.toml", "new");
        place.write("new.py", "new");
        place.write("templates/mail/bill.html", "new");
        watcher.add_files([place.at("app.py")]);
        expect(&mut watcher, "new.py has changed and 2 more");
    });
}

#[test]
fn named_files_and_patterns_count_also_where_they_come_later() {
    with_each_engine(|engine, place| {
        place.write("templates/index.html", "one");
        let extra = ["settings.toml", "templates/**/*.html", "data"];
        fs::create_dir(place.at("data")).unwrap();
        let mut watcher = place.watch(engine, &extra);
        place.write("templates/index.txt", "no template");
        expect_nothing(&mut watcher);
        place.write("templates/index.html", "changed");
        expect(&mut watcher, "templates/index.html has changed");
        place.write("settings.toml", "new");
        expect(&mut watcher, "settings.toml has changed");
        place.write("data/any", "new");
        expect(&mut watcher, "data/any has changed");
        // In a directory that is new itself.
        place.write("templates/mail/bill.html", "new");
        expect(&mut watcher, "templates/mail/bill.html has changed");
        place.write("templates/mail/bill.html", "changed");
        expect(&mut watcher, "templates/mail/bill.html has changed");
    });
}

#[test]
fn a_directory_that_is_replaced_is_watched_again() {
    with_each_engine(|engine, place| {
        place.write("package/module.py", "one");
        let mut watcher = place.watch(engine, &[]);
        watcher.add_files([place.at("package/module.py")]);
        place.write("next/module.py", "another");
        fs::rename(place.at("package"), place.at("before")).unwrap();
        fs::rename(place.at("next"), place.at("package")).unwrap();
        expect(&mut watcher, "package/module.py has changed");
        place.write("package/module.py", "and changed once more");
        expect(&mut watcher, "package/module.py has changed");
        fs::remove_dir_all(place.at("package")).unwrap();
        expect(&mut watcher, "package/module.py has changed");
        place.write("package/module.py", "back");
        expect(&mut watcher, "package/module.py has changed");
        place.write("package/module.py", "and changed");
        expect(&mut watcher, "package/module.py has changed");
    });
}

#[test]
fn a_file_behind_a_link_is_watched_where_it_is() {
    with_each_engine(|engine, place| {
        place.write("real/settings", "one");
        std::os::unix::fs::symlink(place.at("real/settings"), place.at("link")).unwrap();
        let mut watcher = place.watch(engine, &["link"]);
        place.write("real/settings", "changed");
        expect(&mut watcher, "link has changed");
    });
}

#[test]
fn the_files_of_a_folder_count_before_any_of_them_is_loaded() {
    with_each_engine(|engine, place| {
        let mut watcher = Watcher::within(&place.top, &[""; 0], engine, Duration::from_millis(20));
        watcher.add_folder(&place.top);
        place.write("app.py", "changed between the look and the load");
        watcher.add_files([place.at("app.py")]);
        expect(&mut watcher, "app.py has changed");
    });
}

#[test]
fn where_the_system_tells_nothing_more_changes_are_looked_for() {
    let place = Place::new();
    let mut watcher = place.watch(ReloadEngine::Inotify, &[]);
    place.write("app.py", "changed before");
    watcher.fall_back(&Unable::Ended);
    expect(&mut watcher, "app.py has changed");
    place.write("app.py", "changed after");
    expect(&mut watcher, "app.py has changed");
}
