//! The events that hooks of gunicorn's master belong to, as lines of text between two processes.

use serde::{Deserialize, Serialize};

use super::source::Script;

/// The hooks of gunicorn's master.
pub const MASTER_HOOKS: [&str; 8] = [
    "on_starting",
    "when_ready",
    "on_reload",
    "pre_fork",
    "child_exit",
    "nworkers_changed",
    "pre_exec",
    "on_exit",
];

/// An event of the pool.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MasterEvent {
    /// The server starts: `on_starting`.
    OnStarting {},
    /// The listeners are open, or have changed.
    Listening {
        /// Their addresses.
        addresses: Vec<String>,
    },
    /// The server is about to fork its first workers: `when_ready`.
    WhenReady {},
    /// Hooks of another generation apply. The process executes the configuration again; after an error the earlier hooks
    /// stay.
    Reload {
        /// The configuration.
        script: Script,
        /// The settings by gunicorn's names, a JSON object.
        cfg: String,
        /// The application, as it is named in the settings.
        app: String,
        /// Added to `os.environ`.
        environment: Vec<(String, String)>,
    },
    /// The hooks before the last `Reload` apply again, if this process has them.
    Restore {},
    /// New settings apply: `on_reload`.
    OnReload {},
    /// A worker was forked: `pre_fork`.
    Born {
        /// Its process id.
        pid: i32,
        /// Its number among the workers of the server.
        age: u64,
    },
    /// An earlier image has forked this worker.
    Adopted {
        /// Its process id.
        pid: i32,
        /// Its number among the workers of the server.
        age: u64,
    },
    /// A worker has ended: `child_exit`.
    Ended {
        /// Its process id.
        pid: i32,
        /// Its number among the workers of the server.
        age: u64,
    },
    /// The number of workers is another one: `nworkers_changed`.
    Workers {
        /// The number from now on.
        new: usize,
        /// The earlier number; `None`: the server starts.
        old: Option<usize>,
    },
    /// Another image is about to take over: `pre_exec`.
    PreExec {},
    /// The server ends: `on_exit`.
    OnExit {},
    /// The log files are to be opened again.
    ReopenLogs {},
}

impl MasterEvent {
    /// The event as one line, with its end.
    pub fn line(&self) -> String {
        serde_json::to_string(self).unwrap_or_default() + "\n"
    }

    /// The hook that belongs to it; empty: none does.
    pub fn hook(&self) -> &'static str {
        match self {
            MasterEvent::OnStarting {} => "on_starting",
            MasterEvent::WhenReady {} => "when_ready",
            MasterEvent::OnReload {} => "on_reload",
            MasterEvent::Born { .. } => "pre_fork",
            MasterEvent::Ended { .. } => "child_exit",
            MasterEvent::Workers { .. } => "nworkers_changed",
            MasterEvent::PreExec {} => "pre_exec",
            MasterEvent::OnExit {} => "on_exit",
            MasterEvent::Listening { .. }
            | MasterEvent::Adopted { .. }
            | MasterEvent::Reload { .. }
            | MasterEvent::Restore {}
            | MasterEvent::ReopenLogs {} => "",
        }
    }
}

/// The facts about a pool at the start of the process of its hooks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct MasterFacts {
    /// The process id of the supervisor.
    pub pid: i32,
    /// The application, as it is named in the settings.
    pub app: String,
    /// The number of workers.
    pub workers: usize,
    /// The number of the latest worker.
    pub age: u64,
    /// The addresses of the listeners.
    pub listeners: Vec<String>,
    /// The process id and the number of each living worker.
    pub living: Vec<(i32, u64)>,
}

#[cfg(test)]
mod tests {
    use super::super::source::Source;
    use super::*;

    /// One event of each kind.
    fn each() -> Vec<MasterEvent> {
        let (pid, age) = (i32::MAX, u64::MAX);
        let reload = MasterEvent::Reload {
            script: Script { source: Source::File("a\nb.py".into()), text: None },
            cfg: "{\"raw_env\": [\"A=\\n\"]}".to_owned(),
            app: "app:\u{2028}app".to_owned(),
            environment: vec![("A".to_owned(), "b\r\nc\0".to_owned())],
        };
        vec![
            MasterEvent::OnStarting {},
            MasterEvent::Listening { addresses: vec!["http://127.0.0.1:80".to_owned(), "a\nb".to_owned()] },
            MasterEvent::WhenReady {},
            reload,
            MasterEvent::Restore {},
            MasterEvent::OnReload {},
            MasterEvent::Born { pid, age },
            MasterEvent::Adopted { pid, age },
            MasterEvent::Ended { pid, age },
            MasterEvent::Workers { new: 3, old: None },
            MasterEvent::PreExec {},
            MasterEvent::OnExit {},
            MasterEvent::ReopenLogs {},
        ]
    }

    #[test]
    fn each_hook_of_the_master_has_its_event() {
        let hooks: Vec<_> = each().iter().map(MasterEvent::hook).filter(|hook| !hook.is_empty()).collect();
        assert!(hooks.iter().all(|hook| MASTER_HOOKS.contains(hook)), "{hooks:?}");
        assert!(MASTER_HOOKS.iter().all(|hook| hooks.contains(hook)), "{hooks:?}");
    }

    #[test]
    fn an_event_is_one_short_line_and_comes_back_from_it() {
        for event in each() {
            let line = event.line();
            assert_eq!((line.matches('\n').count(), line.len() < 512), (1, true), "{line}");
            assert_eq!(serde_json::from_str::<MasterEvent>(&line).unwrap(), event);
        }
    }
}
