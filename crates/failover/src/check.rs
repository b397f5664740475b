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

use crate::machine::config::Config;
use crate::machine::neighbours;
use crate::report::Form;
use crate::sys::logging::chain;
use crate::sys::terminal::{Style, print};
use crate::vip::VirtualIp;
use finding::{Finding, Level, Numbers, Report};

pub(crate) use finding::UNKNOWN;

/// Checks this machine, and prints the answers in the form that was asked for.
pub(crate) fn check(vip: Option<&VirtualIp>, config: Result<Config, Box<dyn Error>>, form: Form<'_>) -> ExitCode {
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
    match form {
        Form::Prometheus(path) => {
            if let Err(e) = forms::write_prometheus(&report, path) {
                log::error!("{}", chain(&e));
                return ExitCode::from(Level::Unknown.code());
            }
        }
        Form::Nagios => print(&forms::nagios(&report)),
        Form::Json => print(&forms::json(&report)),
        Form::Text => print(&forms::text(&report, Style::of_stdout())),
    }
    ExitCode::from(report.level().code())
}
