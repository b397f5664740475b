//! `--check-config`: every setting in force, and how each daemon is started.

use crate::machine::config::Config;
use crate::machine::notify;
use crate::moosefs::Daemon;
use crate::moosefs::services::Services;
use crate::sys::text::table;

use super::{Result, print};

/// Prints every setting in force, aligned, with the place it came from and its meaning; then how each daemon is controlled.
pub(crate) fn check_config(config: &Config) -> Result<bool> {
    let mut rows = vec![["key", "value", "from", "meaning"].map(str::to_owned)];
    rows.extend(config.in_force.iter().map(|setting| {
        let value = if setting.value.is_empty() { "-" } else { &setting.value };
        [setting.key.name.to_owned(), value.to_owned(), setting.origin.to_string(), setting.key.help.to_owned()]
    }));
    let mut text = String::new();
    table(&mut text, &rows);
    print(&text);
    let services = Services::find(&config.services)?;
    let control = |daemon| services.control(daemon).map_or("not installed".to_owned(), ToString::to_string);
    let daemons = [Daemon::Master, Daemon::Metalogger, Daemon::Cgiserv];
    let mut rows = vec![["daemon", "controlled by"].map(str::to_owned)];
    rows.extend(daemons.map(|daemon| [daemon.to_string(), control(daemon)]));
    let mut text = "\n".to_owned();
    table(&mut text, &rows);
    print(&text);
    if let Some(command) = &config.notify {
        notify::check(command)?;
    }
    Ok(true)
}
