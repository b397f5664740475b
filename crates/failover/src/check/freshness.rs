//! What a check leaves for the guards: what was served when the copy here was last compared with it, and when the copy
//! last had all of it. A machine that knows itself to be behind yields first.

use crate::machine::memory::{self, Freshness};
use crate::machine::state::{self, State};
use crate::sys::logging::chain;
use crate::sys::text::when;

use super::{Numbers, Subject};

impl Subject {
    /// Notes that version `served` was served just now, and what the copy here reached. A note that cannot be kept
    /// changes nothing about the answers.
    pub(super) fn note(&self, served: u64, metaid: Option<u64>, reached: u64, numbers: &mut Numbers) {
        let now = chrono::Utc::now().timestamp();
        let in_sync = if reached >= served { Some(now) } else { self.noted().and_then(|noted| noted.in_sync) };
        numbers.in_sync = in_sync;
        if let Err(e) = keep(&Freshness { compared: now, served, metaid, in_sync }) {
            log::warn!("what is served is not noted for the next promotion: {}", chain(&e));
        }
    }

    /// When the copy was last in step, to be added to a sentence.
    pub(super) fn last_in_step(&self, numbers: &mut Numbers) -> String {
        numbers.in_sync = numbers.in_sync.or_else(|| self.noted().and_then(|noted| noted.in_sync));
        let time = numbers.in_sync.and_then(|time| u64::try_from(time).ok());
        time.map(|time| format!("; last in step {}", when(time))).unwrap_or_default()
    }

    /// The last comparison; none if it cannot be read, which the next promotion will say.
    fn noted(&self) -> Option<Freshness> {
        memory::freshness(self.state.as_ref()?).ok().flatten()
    }
}

/// The first check on a machine makes the folder.
fn keep(freshness: &Freshness) -> Result<(), state::Error> {
    memory::note_freshness(&State::open()?, freshness)
}
