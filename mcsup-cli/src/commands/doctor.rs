//! `mcsup doctor`: collects the facts of the host, and prints the findings.

mod facts;
mod units;

use mcsup_core::host::processes;

use crate::args::doctor::DoctorArgs;
use crate::args::{self, Invocation};
use crate::commands::reading::Reading;
use crate::doctor;
use crate::exit::Exit;
use crate::failure::Failure;

/// Examines the host; returns a text for standard output. A problem is [`Exit::Refused`].
pub(crate) fn run(args: &DoctorArgs) -> Result<(Exit, String), Failure> {
    let words = ["mcsup"].into_iter().chain(args.words.iter().map(String::as_str));
    let run = match args::parse(words.map(Into::into))
        .map_err(|error| args::late_option("doctor", &args.words, error))?
    {
        Invocation::Show(text) => return Ok((Exit::Done, text)),
        Invocation::Run(run) => run,
        Invocation::Exec(exec) => exec.given,
        _ => return Err(Failure::usage("mcsup doctor takes options of mcsup run or mcsup exec")),
    };
    // It asks systemctl for its version.
    processes::keep_statuses_of_children();
    let settings = Reading::new(run, &["mcsup".into()]).read()?;
    let findings = doctor::examine(&facts::collect(&settings, units::collect(&args.unit)));
    let has_problem = findings.iter().any(|finding| finding.level == doctor::Level::Problem);
    let exit = if has_problem { Exit::Refused } else { Exit::Done };
    Ok((exit, if args.json { doctor::json(&findings) } else { doctor::text(&findings) }))
}
