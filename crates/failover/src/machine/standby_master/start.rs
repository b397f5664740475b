//! The start of a master that waits: how a FIFO takes the place of a change log.

use std::ffi::OsString;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use rustix::io::FdFlags;

use super::{Error, FEED, LOOK_EVERY, sweep};
use crate::machine::Machine;
use crate::metadata::names::{self, FED_LOGS, LOADED_IMAGE};
use crate::metadata::{Version, emergency, stage};
use crate::moosefs::Daemon;
use crate::moosefs::waiting::{self, MARK, VARIABLE};
use crate::sys::cancel::Cancel;
use crate::sys::folder::Folder;
use crate::sys::process::Identity;
use crate::sys::progress::Patience;

/// How long a master that has loaded its image may take to open its change log.
const OPENS_WITHIN: Duration = Duration::from_secs(60);
/// The access mode in the flags of an open file, and one that is open for reading (`O_ACCMODE`, `O_RDONLY`).
const ACCESS_MODE: u32 = 3;
const READ_ONLY: u32 = 0;

/// Starts the master, and waits until it reads its feed.
pub(super) fn start(
    machine: &Machine,
    folder: &Folder,
    feed: &File,
    first: Version,
    cancel: &Cancel,
) -> Result<Identity, Error> {
    let mark = mark();
    folder.create(&mark, 0o600)?;
    folder.sync()?;
    let data = &machine.data;
    let started = Names::put(data, folder, machine, first).and_then(|names| {
        // A master looks for images in places where every user can put them.
        let held = emergency::hold(machine.owner)?;
        // It inherits this end.
        let inherit = |flags| {
            let set = rustix::io::fcntl_setfd(feed, flags);
            set.map_err(|e| Error::Io { operation: "hand on the feed of the hot standby", source: e.into() })
        };
        inherit(FdFlags::empty())?;
        let launched = machine.services.launch_master(VARIABLE, &mark.to_string_lossy());
        inherit(FdFlags::CLOEXEC)?;
        let starter = launched?;
        let master = names.exchange(machine, folder, feed, starter, cancel)?;
        drop(held);
        Ok(master)
    });
    // What was launched and does not wait by then, the caller ends.
    if started.is_ok() {
        sweep(data);
    }
    started
}

/// A mark that no other master of this machine has.
fn mark() -> OsString {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{MARK}{}.{}", now.as_nanos(), std::process::id()).into()
}

/// The names of the fed log and of the gate in the data folder.
struct Names {
    fed: OsString,
    gate: OsString,
}

impl Names {
    /// Puts both of them and the image there, in the right order.
    fn put(data: &Folder, folder: &Folder, machine: &Machine, first: Version) -> Result<Self, Error> {
        let mut numbers = FED_LOGS;
        while let (Some(one), Some(two)) = (numbers.next(), numbers.next()) {
            let names = Self { fed: names::fed_log(one), gate: names::fed_log(two) };
            let make_fed = || -> Result<(), Error> {
                let mut file = data.create(&names.fed, 0o600)?;
                // Not a change that a master knows: it is looked at, never replayed.
                let line = writeln!(file, "{first}: 0|MFSPROMOTE()");
                line.map_err(|source| Error::Io { operation: "write the first change of the hot standby", source })?;
                Ok(data.give(&file, &names.fed, machine.owner)?)
            };
            let make_gate = || -> Result<(), Error> {
                let gate = data.make_fifo(&names.gate)?;
                Ok(data.give(&gate, &names.gate, machine.owner)?)
            };
            if one % 4 == 0 {
                make_fed()?;
                make_gate()?;
            } else {
                make_gate()?;
                make_fed()?;
            }
            let listed = data.names_as_listed()?;
            let place = |name: &OsString| listed.iter().position(|listed| listed == name);
            if place(&names.fed) < place(&names.gate) {
                folder.replace_in(stage::IMAGE.as_ref(), data, LOADED_IMAGE.as_ref())?;
                return Ok(names);
            }
            for name in [&names.fed, &names.gate] {
                data.remove(name)?;
            }
        }
        Err(Error::Order)
    }

    /// Waits until the master has loaded the image, and puts the feed in the place of the fed log.
    fn exchange(
        &self,
        machine: &Machine,
        folder: &Folder,
        feed: &File,
        starter: u32,
        cancel: &Cancel,
    ) -> Result<Identity, Error> {
        let data = &machine.data;
        let mut loading = Patience::with(Daemon::Master.program(), machine.start_time());
        let starter = Identity::of(starter);
        let gate = loop {
            if let Some(gate) = data.open_read_fifo(&self.gate)? {
                break gate;
            }
            if starter.is_none_or(|starter| !starter.is_alive()) {
                return Err(Error::Ended("loaded the image"));
            }
            if loading.left().is_zero() {
                return Err(Error::Hangs("load the image"));
            }
            cancel.sleep(LOOK_EVERY)?;
        };
        data.replace_in(LOADED_IMAGE.as_ref(), folder, stage::IMAGE.as_ref())?;
        folder.replace_in(FEED.as_ref(), data, &self.fed)?;
        data.remove(&self.gate)?;
        drop(gate);
        let master = waiting::master(data)?.ok_or(Error::Ended("looked at the change logs"))?;
        let end = Instant::now() + OPENS_WITHIN;
        while !reads(master, feed) {
            if !master.is_alive() {
                return Err(Error::Ended("opened the change logs"));
            }
            if Instant::now() > end {
                return Err(Error::Hangs("open its change log"));
            }
            cancel.sleep(LOOK_EVERY)?;
        }
        data.replace_in(&self.fed, folder, FEED.as_ref())?;
        Ok(master)
    }
}

/// Whether a process has opened the FIFO for reading alone.
fn reads(process: Identity, fifo: &File) -> bool {
    let Ok(status) = fifo.metadata() else { return false };
    let descriptors = std::fs::read_dir(format!("/proc/{}/fd", process.pid)).into_iter().flatten().flatten();
    descriptors.into_iter().any(|descriptor| {
        let same = std::fs::metadata(descriptor.path())
            .is_ok_and(|found| (found.dev(), found.ino()) == (status.dev(), status.ino()));
        same && {
            let number = descriptor.file_name();
            let info = std::fs::read_to_string(format!("/proc/{}/fdinfo/{}", process.pid, number.to_string_lossy()));
            let flags = info
                .unwrap_or_default()
                .lines()
                .find_map(|line| u32::from_str_radix(line.strip_prefix("flags:")?.trim(), 8).ok());
            flags.is_some_and(|flags| flags & ACCESS_MODE == READ_ONLY)
        }
    })
}
