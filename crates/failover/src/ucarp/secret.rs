//! The password of the group, and what is signed with it.
//!
//! ucarp signs its advertisements by HMAC-SHA1 (RFC 2104) with its password as the key; our heartbeats are signed in the same
//! way. The password is read where ucarp reads it, when it is needed, and never logged.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::PathBuf;

use hmac::{Hmac, Mac as _};
use sha1::Sha1;

use super::options::{Options, Password};

/// Longer passwords are refused by ucarp (`CARP_KEY_LEN`).
const LONGEST: usize = 19;

/// Bytes of a signature.
pub(crate) const SIGNATURE: usize = 20;

/// Why nothing signed can be believed or sent.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// ucarp has none.
    #[error("ucarp was started without a password (-o or -p)")]
    None,
    /// The file is gone, or is not root's to read.
    #[error("cannot read ucarp's password file {}; name it with its whole path in ucarp's options", path.display())]
    File {
        /// As ucarp was told.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// ucarp would not start with it.
    #[error("ucarp's password has {0} bytes, and ucarp takes 1 to {LONGEST}")]
    Length(usize),
}

/// The key of the group.
#[derive(Clone)]
pub(crate) struct Secret(Hmac<Sha1>);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// The secret of the ucarp that was started with these options.
    pub(crate) fn of(options: &Options) -> Result<Self, Error> {
        match options.password.as_ref().ok_or(Error::None)? {
            Password::Visible(password) => Self::new(password.as_bytes()),
            Password::File(path) => {
                let failed = |source| Error::File { path: path.clone(), source };
                let mut start = Vec::new();
                // As ucarp: the first line, at most a small buffer.
                File::open(path).and_then(|file| file.take(511).read_to_end(&mut start)).map_err(failed)?;
                Self::new(start.split(|byte| matches!(byte, b'\n' | 0)).next().unwrap_or_default())
            }
        }
    }

    pub(crate) fn new(password: &[u8]) -> Result<Self, Error> {
        if !(1..=LONGEST).contains(&password.len()) {
            return Err(Error::Length(password.len()));
        }
        Ok(Self(Hmac::new_from_slice(password).expect("HMAC takes keys of any length")))
    }

    /// The signature of a message in parts.
    pub(crate) fn sign(&self, parts: &[&[u8]]) -> [u8; SIGNATURE] {
        let mut hmac = self.0.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac.finalize().into_bytes().into()
    }

    /// Whether `signature` is that of the message.
    pub(crate) fn verifies(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        let mut hmac = self.0.clone();
        for part in parts {
            hmac.update(part);
        }
        hmac.verify_slice(signature).is_ok()
    }
}
