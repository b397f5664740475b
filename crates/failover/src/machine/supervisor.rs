//! A run that a hook has started is not to leave the address with nobody behind it, not even if it is killed.
//!
//! Nobody waits for such a run, and no hook is called again while ucarp is content. So it starts a second process, its
//! stand-in, which does nothing but read from a pipe. A run that ends by itself says so there. If the pipe ends without
//! that word, the run was killed, by hand or for want of memory, or has panicked: the stand-in does the work of the same
//! call anew, with a stand-in of its own. The place in the order of calls is the same, so if a later call has come, that
//! one goes on instead. A third death is no accident: the run after it has no stand-in, and where no master answers by
//! then it gives up ([`Failure::Killed`](crate::promotion::Failure::Killed)).

use std::error::Error;
use std::ffi::OsString;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::Arc;

use crate::sys::logging::chain;
use crate::sys::process;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::cli::Promote;

/// So many deaths of runs of one call are no accident.
pub(crate) const MOST_DEATHS: u8 = 3;
/// What a run that ends by itself writes.
const WORD: &[u8] = b"done";
/// What a stand-in is called in lists of processes until it is needed: `pkill mfs-promote` is not for it.
const WAITING: &std::ffi::CStr = c"mfs-stand-in";

/// The process that goes on if this one is killed; copies stand for the same one.
#[derive(Debug, Clone)]
pub(crate) struct Supervisor(Option<Arc<File>>);

impl Supervisor {
    /// Starts one for this run, if it has a place in the order of calls. Without one it works all the same.
    pub(crate) fn appoint(args: &Promote) -> Self {
        if args.ticket.is_none() || args.stand_in >= MOST_DEATHS {
            return Self(None);
        }
        let started = start(args.stand_in + 1);
        let started = started.inspect_err(|e| log::warn!("if this run is killed, nobody goes on: {}", chain(&**e)));
        let stand_in = Self(started.ok().map(Arc::new));
        stand_in.say(format!("{} ", std::process::id()).as_bytes());
        stand_in
    }

    /// Tells it that this run ends by itself.
    pub(crate) fn dismiss(&self) {
        self.say(WORD);
    }

    fn say(&self, word: &[u8]) {
        let told = self.0.as_ref().map(|said| (&**said).write_all(word));
        if let Some(Err(e)) = told {
            log::debug!("the stand-in is gone: {e}");
        }
    }
}

/// Starts a process that does what this one was told, after so many deaths; returns the end of the pipe to say so.
fn start(deaths: u8) -> Result<File, Box<dyn Error>> {
    let mut words: Vec<OsString> = std::env::args_os().skip(1).collect();
    words.retain(|word| !word.as_encoded_bytes().starts_with(b"--stand-in="));
    words.push(format!("--stand-in={deaths}").into());
    let (input, said) = pipe_with(PipeFlags::CLOEXEC)?;
    let pid = process::launch_reading(&process::find_beside("mfs-promote")?, &words, input)?;
    log::debug!("process {pid} goes on if this one is killed");
    Ok(File::from(said))
}

/// In the stand-in: waits until the run has ended, and says whether it was killed.
pub(crate) fn is_needed(args: &Promote) -> bool {
    let _ = rustix::thread::set_name(WAITING);
    let mut said = Vec::new();
    if let Err(e) = std::io::stdin().read_to_end(&mut said) {
        log::error!("what the run before this one does cannot be heard: {e}");
        return false;
    }
    if said.ends_with(WORD) {
        return false;
    }
    let _ = rustix::thread::set_name(c"mfs-promote");
    let what = if args.demote { "demotion" } else { "promotion" };
    log::error!("the {what} of process {} was killed; it is begun again", String::from_utf8_lossy(said.trim_ascii()));
    true
}
