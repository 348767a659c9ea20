//! Property lists for launchd: launchd.plist(5).

use super::{Bind, Control, Plan, Refused};

/// The property list of an agent: launchd runs it as the user that has loaded it.
///
/// # Errors
/// The settings need a socket that launchd does not pass by number, or a text has a control character.
pub(crate) fn agent(plan: &Plan, logs: &str) -> Result<String, Refused> {
    if plan.binds.contains(&Bind::Passed) {
        return Err("launchd passes no socket by number: name an address to listen on".to_owned());
    }
    let mut list = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    list += "<!DOCTYPE plist PUBLIC \"-//Apple//DTD PLIST 1.0//EN\" ";
    list += "\"http://www.apple.com/DTDs/PropertyList-1.0.dtd\">\n";
    let texts = plan.environment.iter().flat_map(|(name, value)| [name, value]);
    let texts = texts.chain(&plan.program).chain(&plan.words).chain([&plan.directory]);
    refuse_controls(texts.map(String::as_str).chain([logs]))?;
    // A comment cannot have two hyphens, and the head has no text of an operator.
    list += &format!("<!--\n{}-->\n<plist version=\"1.0\">\n<dict>\n", plan.head("", "launchd"));
    list += &string("Label", &plan.name);
    list += &array("ProgramArguments", &plan.command_line(&plan.program, &added(plan, logs)));
    list += &string("WorkingDirectory", &plan.directory);
    if !plan.environment.is_empty() {
        list += "    <key>EnvironmentVariables</key>\n    <dict>\n";
        for (name, value) in &plan.environment {
            list += &format!(
                "        <key>{}</key>\n        <string>{}</string>\n",
                escaped(name),
                escaped(value)
            );
        }
        list += "    </dict>\n";
    }
    list += "    <key>RunAtLoad</key>\n    <true/>\n";
    list += "    <!-- Started again after a failure, not after a stop. -->\n";
    list += "    <key>KeepAlive</key>\n    <dict>\n        <key>SuccessfulExit</key>\n        <false/>\n    </dict>\n";
    list += &integer("ThrottleInterval", 5);
    list +=
        "    <!-- Above the drain delay and the graceful timeout: launchd kills the supervisor then. -->\n";
    list += &integer("ExitTimeOut", plan.times.stop_seconds());
    list += &string("ProcessType", "Interactive");
    list += "    <key>SoftResourceLimits</key>\n    <dict>\n        <key>NumberOfFiles</key>\n";
    list += "        <integer>8192</integer>\n    </dict>\n";
    for stream in ["StandardOutPath", "StandardErrorPath"] {
        list += &string(stream, &format!("{logs}/{}.log", plan.name));
    }
    Ok(list + "</dict>\n</plist>\n")
}

/// The path of the control socket that is added, beside the log.
pub(crate) fn control_socket(plan: &Plan, logs: &str) -> Option<String> {
    match &plan.control {
        Control::Free => Some(format!("{logs}/{}.ctl", plan.name)),
        Control::At(path) => Some(path.clone()),
        Control::Off => None,
    }
}

fn added(plan: &Plan, logs: &str) -> Vec<String> {
    let path = control_socket(plan, logs).filter(|_| plan.control == Control::Free);
    path.map(|path| format!("--control-socket={path}")).into_iter().collect()
}

fn string(key: &str, value: &str) -> String {
    format!("    <key>{key}</key>\n    <string>{}</string>\n", escaped(value))
}

fn integer(key: &str, value: u64) -> String {
    format!("    <key>{key}</key>\n    <integer>{value}</integer>\n")
}

fn array(key: &str, values: &[String]) -> String {
    let lines: String =
        values.iter().map(|value| format!("        <string>{}</string>\n", escaped(value))).collect();
    format!("    <key>{key}</key>\n    <array>\n{lines}    </array>\n")
}

/// Refuses texts that XML 1.0 cannot have: those with control characters beside tab, line feed and carriage return.
fn refuse_controls<'a>(mut texts: impl Iterator<Item = &'a str>) -> Result<(), Refused> {
    let is_wrong = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
    match texts.find(|text| text.contains(is_wrong)) {
        None => Ok(()),
        Some(text) => Err(format!("a property list cannot have the control character in {text:?}")),
    }
}

/// Text of an element.
fn escaped(text: &str) -> String {
    let escape = |c: char| match c {
        '&' => "&amp;".to_owned(),
        '<' => "&lt;".to_owned(),
        '>' => "&gt;".to_owned(),
        '\t' | '\n' | '\r' => format!("&#{};", u32::from(c)),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::plan;
    use super::*;

    #[test]
    fn the_words_are_escaped_and_the_timeout_covers_the_drain() {
        let words = ["-e", "A=<&>", "a:b"].map(str::to_owned).to_vec();
        let list = agent(&Plan { words, ..plan() }, "/Users/me/Library/Logs").unwrap();
        assert!(list.contains("<string>A=&lt;&amp;&gt;</string>"), "{list}");
        assert!(list.contains("<key>ExitTimeOut</key>\n    <integer>40</integer>"), "{list}");
        assert!(list.contains("<string>--control-socket=/Users/me/Library/Logs/shop.ctl</string>"), "{list}");
    }

    #[test]
    fn a_text_with_a_control_character_is_refused() {
        let words = vec!["a\tb\n".to_owned()];
        assert!(agent(&Plan { words, ..plan() }, "/tmp").unwrap().contains("a&#9;b&#10;"));
        let words = vec!["a\u{1}".to_owned()];
        for plan in [Plan { words, ..plan() }, Plan { directory: "/srv/\u{7f}".to_owned(), ..plan() }] {
            assert!(agent(&plan, "/tmp").unwrap_err().contains("control character"));
        }
    }

    #[test]
    fn a_socket_by_number_is_refused() {
        let words = ["-b", "fd://3", "a:b"].map(str::to_owned).to_vec();
        assert!(agent(&Plan { words, binds: vec![Bind::Passed], ..plan() }, "/tmp").is_err());
    }
}
