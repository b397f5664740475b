//! `--check-config`: every setting in force, and how each daemon is started.

use std::error::Error;
use std::fmt::Write as _;

use crate::machine::config::Config;
use crate::moosefs::Daemon;
use crate::moosefs::services::Services;

use crate::machine::notify;
use crate::sys::terminal::print;

/// Prints every setting in force, aligned, with where it came from.
pub(crate) fn check_config(config: &Config) -> Result<bool, Box<dyn Error>> {
    let width = config.in_force.iter().map(|setting| setting.key.len()).max().unwrap_or_default();
    let value_width = config.in_force.iter().map(|setting| setting.value.len()).max().unwrap_or_default();
    let mut text = String::new();
    for setting in &config.in_force {
        let value = if setting.value.is_empty() { "-" } else { &setting.value };
        writeln!(text, "{:width$}  {value:value_width$}  {}", setting.key, setting.origin)?;
    }
    let services = Services::find(config)?;
    for daemon in [Daemon::Master, Daemon::Metalogger, Daemon::Cgiserv] {
        let control = services.control(daemon).map_or("not installed".to_owned(), ToString::to_string);
        writeln!(text, "{:width$}  {control}", daemon.program())?;
    }
    print(&text);
    if let Some(command) = &config.notify {
        notify::check(command)?;
    }
    Ok(true)
}
