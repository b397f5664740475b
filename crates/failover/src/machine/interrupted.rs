//! What an interrupted run left, and what the next promotion or demotion will do about it. Changes nothing.

use crate::machine::commit;
use crate::machine::recover::{Error, Outlook};
use crate::machine::state::{self, Journal, Phase, State};
use crate::sys::folder::Folder;

/// An interrupted run.
pub(crate) enum Interrupted {
    /// It is described in the journal.
    Known(Journal, Outlook),
    /// It was moving files, and its journal is lost or cannot be read.
    Unknown {
        /// Why the journal cannot be read; `None` if there is none.
        damaged: Option<state::Error>,
        /// The folders of such runs, named by their start.
        runs: Vec<u64>,
    },
}

impl Interrupted {
    /// Looks for one.
    pub(crate) fn look(data: &Folder) -> Result<Option<Self>, Error> {
        let damaged = match State::open_existing()?.map(|state| state.journal()).transpose() {
            Ok(Some(Some(journal))) => {
                // The journal of another data folder is judged by that folder.
                let outlook = match Folder::open(&journal.data_path) {
                    Ok(folder) => Outlook::of(&folder, &journal)?,
                    Err(_) => Outlook::of(data, &journal)?,
                };
                return Ok(Some(Self::Known(journal, outlook)));
            }
            Ok(_) => None,
            Err(e @ state::Error::Damaged { .. }) => Some(e),
            Err(e) => return Err(e.into()),
        };
        let runs = commit::lost_runs(data)?;
        Ok((damaged.is_some() || !runs.is_empty()).then_some(Self::Unknown { damaged, runs }))
    }

    /// The data folder as the next promotion will see it when it plans. A journal of another data folder changes nothing.
    pub(crate) fn seen_by_next(&self, data: Folder) -> Result<Folder, commit::Error> {
        Ok(match self {
            Self::Known(journal, Outlook::Back { .. }) if journal.phase != Phase::Stopping => {
                commit::as_rolled_back(data, journal)?
            }
            Self::Known(..) => data,
            Self::Unknown { runs, .. } => runs.iter().try_fold(data, |data, run| commit::as_taken_back(data, *run))?,
        })
    }
}
