//! `--check`: is this machine ready to take over, and how long would that take?
//!
//! [`mod@gather`] finds out the facts, [`mod@judge`] answers each question with a text and a level. The worst level is
//! the verdict and the exit code, as of a Nagios plugin. People, programs, Nagios and Prometheus get the same answers.
//! Nothing is changed, but the state folder notes how fresh the copy is, for the check before the next promotion. Whether
//! folders can be written and files be moved is tried with names of its own, which are removed again.

mod copy;
mod facts;
mod finding;
mod forms;
mod gather;
mod judge;

use std::error::Error;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use crate::machine::config::Config;
use crate::machine::neighbours;
use crate::report::Form;
use crate::sys::cancel::Cancel;
use crate::sys::logging::chain;
use crate::sys::terminal::{Style, print};
use crate::vip::VirtualIp;
use finding::{Finding, Level, Numbers, Report};

pub(crate) use finding::UNKNOWN;

/// How long to wait before another look.
const AGAIN: Duration = Duration::from_secs(1);

/// Checks this machine, and prints the answers in the form that was asked for.
pub(crate) fn check(vip: Option<&VirtualIp>, config: Result<Config, Box<dyn Error>>, form: Form<'_>) -> ExitCode {
    let report = report(vip, config);
    match form {
        Form::Prometheus(path) => {
            if let Err(e) = forms::write_prometheus(&report, path) {
                log::error!("{}", chain(&e));
                return ExitCode::from(Level::Unknown.code());
            }
        }
        Form::Nagios => print(&forms::nagios(&report)),
        Form::Json => print(&forms::json(&report)),
        Form::Text => print_for_people(&report),
    }
    ExitCode::from(report.level().code())
}

/// Checks this machine until nothing is critical any more, for `patience` at most, and prints the last answers. Says whether
/// nothing is critical. A daemon that has just been started needs a moment for its first connection and its first copy.
pub(crate) fn check_until_ready(
    load: impl Fn() -> Result<Config, Box<dyn Error>>,
    patience: Duration,
    cancel: &Cancel,
) -> bool {
    let end = Instant::now() + patience;
    loop {
        let report = report(None, load());
        let ready = report.level() < Level::Unknown;
        if ready || Instant::now() > end || cancel.sleep(AGAIN).is_err() {
            print_for_people(&report);
            return ready;
        }
    }
}

fn print_for_people(report: &Report) {
    print(&forms::text(report, Style::of_stdout()));
}

/// The answers, also where nothing could be found out.
fn report(vip: Option<&VirtualIp>, config: Result<Config, Box<dyn Error>>) -> Report {
    let xparam = config.as_ref().ok().and_then(|config| config.instance.name()).map(str::to_owned);
    let mut report = match config.and_then(|config| Ok((gather::gather(vip, &config)?, neighbours::conflict(&config))))
    {
        Ok((facts, conflict)) => {
            let mut report = judge::judge(&facts);
            report.findings.extend(conflict.map(|conflict| Finding::critical("ucarp", conflict.to_string())));
            report
        }
        Err(e) => Report {
            role: None,
            findings: vec![Finding::critical("setup", chain(e.as_ref()))],
            numbers: Numbers::default(),
        },
    };
    report.numbers.xparam = xparam;
    report
}
