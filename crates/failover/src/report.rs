//! The verbs that change nothing: `--dry-run`, `--status`, `--check-config`.
//!
//! `dry_run` and `status` gather plain data. Programs get it as it is (`--json`); `text` makes the forms for people.
//! The field names are documented in `docs/configuration.md` and stay.

mod config;
mod dry_run;
mod interrupted;
mod status;
mod text;

use std::error::Error;
use std::path::Path;

use serde::Serialize;

use crate::machine::config::Config;
use crate::metadata::Loss;
use crate::sys::cancel::Cancel;
use crate::sys::terminal::{Style, print};
use crate::sys::text::json;
use crate::vip::VirtualIp;

pub(crate) use config::check_config;
pub(crate) use interrupted::describe as describe_interrupted;

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Raised when a field changes its meaning or goes; new fields do not raise it.
const FORMAT: u32 = 1;

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form<'a> {
    /// For people.
    Text,
    /// For programs.
    Json,
    /// One line for Nagios.
    Nagios,
    /// Into this file, for the node exporter of Prometheus.
    Prometheus(&'a Path),
}

/// The data for programs, with the number of its format.
#[derive(Serialize)]
struct Numbered<'a, T> {
    format: u32,
    #[serde(flatten)]
    data: &'a T,
}

/// Prints what a promotion would do; answers whether it would succeed.
pub(crate) fn dry_run(
    config: &Config,
    vip: Option<&VirtualIp>,
    loss: Loss,
    form: Form<'_>,
    cancel: &Cancel,
) -> Result<bool> {
    let data = &dry_run::DryRun::gather(config, vip, loss, cancel)?;
    let people = || text::dry_run(data, Style::of_stdout());
    print(&if form == Form::Json { json(&Numbered { format: FORMAT, data }) } else { people() });
    Ok(data.would_succeed)
}

/// Prints what runs here, and the last runs.
pub(crate) fn status(config: &Config, form: Form<'_>) -> Result<bool> {
    let data = &status::Status::gather(config)?;
    print(&if form == Form::Json {
        json(&Numbered { format: FORMAT, data })
    } else {
        text::status(data, Style::of_stdout())
    });
    Ok(true)
}
