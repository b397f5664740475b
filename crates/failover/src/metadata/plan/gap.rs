//! What is missing in the metalogger's copy, and would be there if it had downloaded everything.

use std::fmt;

use super::loss::nothing_beyond;
use super::{Loss, candidate};
use crate::metadata::Lineage;
use crate::metadata::inventory::Inventory;
use crate::metadata::note::{Refusal, missing};

/// What a master has to send again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gap {
    /// There is no image to start from.
    Image,
    /// Changes between the image, or the logs behind it, and the newest change log.
    Changes {
        /// The first one.
        first: u64,
        /// The last one.
        last: u64,
    },
    /// An image of the history that the metalogger follows.
    History,
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Image => f.write_str("there is no complete image"),
            Self::History => f.write_str("there is no image of the history that is served now"),
            Self::Changes { first, last } => f.write_str(&missing(first, last)),
        }
    }
}

/// The gap in the metalogger's files, for which a plan is refused. `None` if they have none: then something else is wrong.
pub(crate) fn gap_in_copy(inventory: &Inventory) -> Option<Gap> {
    let Some(copy) = candidate(inventory, Lineage::Ml) else { return Some(Gap::Image) };
    match nothing_beyond(inventory, Lineage::Ml, copy.end, Loss::Refuse) {
        Err(Refusal::Hole { needed, first, .. }) => Some(Gap::Changes { first: needed, last: first - 1 }),
        Err(Refusal::Unfollowed { .. }) => Some(Gap::History),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metadata::testing::Data;

    const IMAGE: &str = "metadata_ml.mfs.back";
    const LOG: &str = "changelog_ml.0.mfs";
    const DOWNLOADED: &str = "changelog_ml_back.0.mfs";

    fn gap(data: &Data) -> Option<Gap> {
        gap_in_copy(&data.inventory())
    }

    #[test]
    fn a_gap_is_named_as_long_as_no_log_has_its_changes() {
        let data = Data::new().image(IMAGE, 20, 1).log(LOG, 40..=60, 0);
        assert_eq!(gap(&data), Some(Gap::Changes { first: 20, last: 39 }));
        assert_eq!(gap(&data).unwrap().to_string(), "changes 20 to 39 are missing");
        let data = data.log(LOG, 40..=90, 0);
        assert_eq!(gap(&data), Some(Gap::Changes { first: 20, last: 39 }), "the metalogger writes on");
        assert_eq!(gap(&data.log(DOWNLOADED, 10..=50, 0)), None);
    }

    #[test]
    fn a_gap_in_the_middle_of_a_log_is_one_and_the_next_download_closes_it() {
        // Restarted by an administrator, and the connection ended during that download.
        let data = Data::new().image(IMAGE, 20, 1).log(LOG, (15..=30).chain(35..=60), 0);
        assert_eq!(gap(&data), Some(Gap::Changes { first: 31, last: 34 }));
        assert!(data.plan().is_err());
        // Restarted: it writes behind what is there.
        let data = data.log(LOG, (15..=30).chain(35..=60).chain(64..=70), 0).log(DOWNLOADED, 18..=66, 0);
        assert_eq!((gap(&data), data.plan().unwrap().end_version.0), (None, 71));
        assert_eq!(gap(&data.image(IMAGE, 68, 1).log(DOWNLOADED, [], 0)), None, "a later image without a log");
    }

    #[test]
    fn a_history_that_is_followed_without_an_image_is_a_gap() {
        let next = crate::metadata::EPOCH;
        let follows = |last| {
            Data::new().image(IMAGE, 20, 1).log("changelog_ml.20000.mfs", 18..=30, 0).log(LOG, next + 33..=last, 0)
        };
        assert_eq!(gap(&follows(next + 40)), Some(Gap::History));
        assert_eq!(gap(&follows(next + 90)), Some(Gap::History), "the metalogger writes on");
    }

    #[test]
    fn a_copy_without_an_image_has_a_gap_and_files_of_two_file_systems_have_none() {
        assert_eq!(gap(&Data::new().log(LOG, 40..=60, 0)), Some(Gap::Image));
        assert_eq!(gap(&Data::new()), Some(Gap::Image));
        let two = Data::new().image(IMAGE, 20, 1).image("metadata_ml.mfs.back.1", 10, 2).log(LOG, 20..=30, 0);
        assert_eq!((gap(&two), two.plan().is_err()), (None, true));
    }
}
