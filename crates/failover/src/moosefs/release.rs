//! Releases of MooseFS, and the abilities of each.

use std::fmt::{self, Display};

use super::Error;

/// A release of MooseFS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Release {
    /// 3 of 3.0.117
    pub(crate) major: u16,
    /// 0 of 3.0.117
    pub(crate) minor: u8,
    /// 117 of 3.0.117
    pub(crate) patch: u8,
}

impl Release {
    /// The first release whose master replays change logs when it starts (`-a`), and the first with the 2.0 metadata
    /// format.
    pub(crate) const AUTO_RESTORE: Self = Self { major: 2, minor: 0, patch: 0 };
    /// The first release with `mfsmaster restore`, which opens no port.
    pub(crate) const RESTORE_ALONE: Self = Self { major: 3, minor: 0, patch: 107 };

    /// The first release of which it is known that its master counts its caution with clients and chunkservers from the end
    /// of its replay (`main_start_time`, set in `initialize_late`). Those of 3.0 count from before.
    pub(crate) const FRESH_AFTER_REPLAY: Self = Self { major: 4, minor: 56, patch: 5 };

    /// Whether its master can wait in its replay, and serves as safely as one that was just started.
    pub(crate) fn can_wait(self) -> bool {
        self >= Self::FRESH_AFTER_REPLAY
    }

    /// Whether its master replays change logs when it starts (`-a`). One of 1.x needs `mfsmetarestore` for that.
    pub(crate) fn restores_itself(self) -> bool {
        self >= Self::AUTO_RESTORE
    }

    /// Reads the output of `mfsmaster -v`: `version: 3.0.117-1 ; build: 1341`.
    pub(crate) fn parse(output: &str) -> Result<Self, Error> {
        let unreadable = || Error::Release(output.trim().to_owned());
        let after = output.split("version:").nth(1).ok_or_else(unreadable)?.trim_start();
        let mut parts = after.split(|c: char| !c.is_ascii_digit());
        let mut part = || parts.next().and_then(|text| text.parse::<u16>().ok());
        match (part(), part(), part()) {
            (Some(major), Some(minor), Some(patch)) => Ok(Self {
                major,
                minor: u8::try_from(minor).map_err(|_| unreadable())?,
                patch: u8::try_from(patch).map_err(|_| unreadable())?,
            }),
            _ => Err(unreadable()),
        }
    }

    /// Reads the four bytes that a master sends; from 2.0 on the last one is doubled (`configure.ac` of MooseFS).
    pub(super) fn from_wire(bytes: [u8; 4]) -> Self {
        let major = u16::from_be_bytes([bytes[0], bytes[1]]);
        Self { major, minor: bytes[2], patch: if major >= 2 { bytes[3] / 2 } else { bytes[3] } }
    }

    /// The same four bytes.
    pub(super) fn to_wire(self) -> [u8; 4] {
        let [high, low] = self.major.to_be_bytes();
        [high, low, self.minor, if self.major >= 2 { self.patch * 2 } else { self.patch }]
    }
}

impl Display for Release {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read_from_what_the_daemons_print() {
        let v = |text: &str| Release::parse(text).unwrap().to_string();
        assert_eq!(v("version: 3.0.117-1 ; build: 1341\n"), "3.0.117");
        assert_eq!(v("version: 1.6.27\n"), "1.6.27");
        assert_eq!(v("version: 4.57.5-1 ; build: 1\n"), "4.57.5");
        assert!(Release::parse("mfsmaster: unknown option").is_err());
        assert!(Release::parse("version: 1.6.19").unwrap() < Release::AUTO_RESTORE);
    }
}
