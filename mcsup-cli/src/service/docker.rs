//! A Dockerfile for a Python application.

use super::{CONTAINER_USER, Plan, Refused, Tls};

/// The Dockerfile.
///
/// # Errors
/// The pool would not be reachable, or is a program that needs another image.
pub(crate) fn file(plan: &Plan) -> Result<String, Refused> {
    if plan.is_program {
        return Err(
            "the image of a program depends on it: this Dockerfile is for a Python application".to_owned()
        );
    }
    let entrypoint = list(&plan.in_container(&[])?);
    if !plan.changes_user() {
        plan.refuse_files()?;
    }
    let stop = plan.times.stop_seconds();
    let mut file = plan.head("# ", "docker");
    file += &format!("#   docker build -t {0} .\n#   docker run --stop-timeout {stop}", plan.image());
    file += &plan.port().map(|port| format!(" -p {port}:{port}")).unwrap_or_default();
    file += &format!(" {}\n", plan.image());
    file += "# The default of 10 seconds before a kill is shorter than the drain.\n\n";
    file += "ARG PYTHON_VERSION=3.13\nFROM python:${PYTHON_VERSION}-slim\n\n";
    file += "# For pip: a version, or a wheel in this directory such as ./mcsup.whl.\n";
    file += &format!("ARG MCSUP=mcsup=={}\n\n", env!("CARGO_PKG_VERSION"));
    file += "WORKDIR /app\nCOPY . .\n";
    file += "RUN pip install --no-cache-dir \"$MCSUP\" \\\n";
    file += "    && if [ -f requirements.txt ]; then pip install --no-cache-dir -r requirements.txt; fi \\\n";
    file += &format!("    && install -d -o {CONTAINER_USER} -g {CONTAINER_USER} /run/mcsup\n");
    if let Some(path) = plan.control_in_container() {
        file += "\n# For `docker exec`: mcsup status, mcsup reload.\n";
        file += &format!("ENV MCSUP_CONTROL_SOCKET={}\n", quoted(&path)?);
    }
    if !plan.changes_user() {
        file += &format!("USER {CONTAINER_USER}:{CONTAINER_USER}\n");
    }
    file += &plan.port().map(|port| format!("EXPOSE {port}\n")).unwrap_or_default();
    file += "# mcsup is the first process: no shell or init stands in front of it.\n";
    file += "STOPSIGNAL SIGTERM\n";
    file += &health_check(plan);
    Ok(file + &format!("ENTRYPOINT {entrypoint}\n"))
}

fn health_check(plan: &Plan) -> String {
    let (Some(port), Some(path)) = (plan.port(), plan.health_in_container()) else { return String::new() };
    let code = match plan.tls {
        Tls::None => format!(
            "import urllib.request as request; request.urlopen({}, timeout=3)",
            json(&format!("http://127.0.0.1:{port}{path}"))
        ),
        // The certificate is for the name that clients use.
        _ => format!(
            "import ssl, urllib.request as request; request.urlopen({}, timeout=3, \
             context=ssl._create_unverified_context())",
            json(&format!("https://127.0.0.1:{port}{path}"))
        ),
    };
    let start = plan.times.boot_seconds();
    let command = list(&["python".to_owned(), "-Sc".to_owned(), code]);
    format!("HEALTHCHECK --interval=10s --timeout=5s --start-period={start}s CMD {command}\n")
}

/// The exec form of a command: an array in JSON.
fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| json(word)).collect();
    format!("[{}]", words.join(", "))
}

/// A value of `ENV` in double quotes, where `$` begins a variable and `\` an escape.
fn quoted(text: &str) -> Result<String, Refused> {
    if text.contains(char::is_control) {
        return Err(format!("a Dockerfile cannot have {text:?} in a variable"));
    }
    let escape = |c: char| if matches!(c, '$' | '"' | '\\') { format!("\\{c}") } else { c.to_string() };
    Ok(format!("\"{}\"", text.chars().map(escape).collect::<String>()))
}

fn json(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::fixture::plan;
    use super::super::{Bind, Control};
    use super::*;

    fn line<'a>(file: &'a str, first: &str) -> &'a str {
        file.lines().find_map(|line| line.strip_prefix(first)).unwrap_or_default()
    }

    #[test]
    fn the_entry_point_is_the_command_with_the_options_that_a_container_needs() {
        let text = file(&plan()).unwrap();
        let words: Vec<String> = serde_json::from_str(line(&text, "ENTRYPOINT ")).unwrap();
        let added = ["mcsup", "--control-socket=/run/mcsup/mcsup.ctl", "--health-path=/healthz"];
        assert_eq!(words, [&added[..], &["-w", "4", "-b", "0.0.0.0:8080", "shop.web:app"]].concat());
        assert_eq!((line(&text, "EXPOSE "), line(&text, "USER ")), ("8080", "10001:10001"));
        assert!(text.contains("--stop-timeout 40 "), "{text}");
    }

    #[test]
    fn a_pool_without_an_address_listens_outside_of_loopback() {
        let words = vec!["a:b".to_owned()];
        let free = Plan { binds: Vec::new(), words, has_workers: false, control: Control::Off, ..plan() };
        let text = file(&free).unwrap();
        let expected =
            r#"["mcsup", "--bind=0.0.0.0:8000", "--workers=auto", "--health-path=/healthz", "a:b"]"#;
        assert_eq!(line(&text, "ENTRYPOINT "), expected);
        assert_eq!(line(&text, "ENV "), "");
        for host in ["127.0.0.1", "localhost", "::1"] {
            let binds = vec![Bind::Tcp { host: host.to_owned(), port: 80 }];
            let refused = file(&Plan { binds, ..plan() }).unwrap_err();
            assert!(refused.ends_with("-b 0.0.0.0:80"), "{refused}");
        }
    }

    #[test]
    fn a_control_socket_is_the_same_in_the_variable_and_in_the_command() {
        let control = |path: &str| Plan { control: Control::At(path.to_owned()), ..plan() };
        let text = file(&control(r#"/tmp/$x "\.ctl"#)).unwrap();
        assert_eq!(line(&text, "ENV MCSUP_CONTROL_SOCKET="), r#""/tmp/\$x \"\\.ctl""#);
        assert!(file(&control("/tmp/a\n.ctl")).is_err());
    }

    #[test]
    fn a_file_that_the_user_of_the_container_cannot_write_is_refused() {
        let writing = |path: &str| Plan { files: vec![path.to_owned()], ..plan() };
        for path in ["run/app.pid", "/var/log/app.log"] {
            let refused = file(&writing(path)).unwrap_err();
            assert!(refused.starts_with(path), "{refused}");
            // As root it can.
            assert!(file(&Plan { user: Some("www-data".to_owned()), ..writing(path) }).is_ok());
        }
        for path in ["/tmp/app.pid", "/run/mcsup/app.log", "/dev/stdout"] {
            assert!(file(&writing(path)).is_ok());
        }
    }

    #[test]
    fn a_pool_that_changes_its_user_or_group_begins_as_root() {
        let name = || Some("www-data".to_owned());
        for plan in [Plan { user: name(), ..plan() }, Plan { group: name(), ..plan() }] {
            assert_eq!(line(&file(&plan).unwrap(), "USER "), "");
        }
    }

    #[test]
    fn the_health_check_speaks_tls_where_the_server_does() {
        let check = |tls| line(&file(&Plan { tls, ..plan() }).unwrap(), "HEALTHCHECK ").to_owned();
        assert!(check(Tls::None).contains("http://127.0.0.1:8080/healthz"));
        let by_tls = check(Tls::Any);
        assert!(by_tls.contains("https://127.0.0.1:8080/healthz") && by_tls.contains("context="), "{by_tls}");
        assert_eq!(check(Tls::WithClientCertificates), "");
    }

    #[test]
    fn an_image_has_no_capital_letters() {
        let text = file(&Plan { name: "My_Shop".to_owned(), ..plan() }).unwrap();
        assert!(text.contains("docker build -t my_shop .") && text.contains(" my_shop\n"), "{text}");
    }

    #[test]
    fn a_program_that_is_not_python_has_an_image_of_its_own() {
        assert!(file(&Plan { is_program: true, ..plan() }).is_err());
    }
}
