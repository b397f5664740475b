//! `--check`: is this machine ready to take over, and how long would that take?
//!
//! [`mod@gather`] finds out the facts, [`mod@judge`] answers each question with a text and a level. The worst level is
//! the verdict and the exit code, as of a Nagios plugin. People, programs, Nagios and Prometheus get the same answers.
//! Nothing is changed, but the state folder notes how fresh the copy is, for the check before the next promotion.

mod copy;
mod facts;
mod finding;
mod forms;
mod gather;
mod judge;

use std::process::ExitCode;

use crate::cli::Promote;
use crate::sys::logging::chain;
use crate::sys::terminal::{Style, print};
use finding::{Finding, Level, Numbers, Report};

pub(crate) use finding::UNKNOWN;

/// Checks this machine, and prints the answers in the form that was asked for.
pub(crate) fn check(args: &Promote) -> ExitCode {
    let report = match gather::gather(args) {
        Ok(facts) => judge::judge(&facts),
        Err(e) => Report {
            role: None,
            findings: vec![Finding::critical("setup", chain(e.as_ref()))],
            numbers: Numbers::default(),
        },
    };
    match &args.prometheus {
        Some(path) => {
            if let Err(e) = forms::write_prometheus(&report, path) {
                log::error!("{}", chain(&e));
                return ExitCode::from(Level::Unknown.code());
            }
        }
        None if args.nagios => print(&forms::nagios(&report)),
        None if args.json => print(&forms::json(&report)),
        None => print(&forms::text(&report, Style::of_stdout())),
    }
    ExitCode::from(report.level().code())
}
