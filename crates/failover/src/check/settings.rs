//! The files that decide how a master behaves and should be the same on every machine.
//!
//! Other machines' files cannot be seen from here. So they are told apart by fingerprints, which monitoring can compare,
//! and the ones of the last rehearsal or promotion here are remembered: what has changed since was never tried.

use std::collections::BTreeMap;
use std::path::PathBuf;

use crate::machine::config::Config;
use crate::machine::state::State;
use crate::sys::logging::chain;

use super::{Finding, Level};

/// Remembers the files as they are now: a master has just been started with them.
pub(crate) fn note(config: &Config, state: &State) {
    let now = fingerprints(&files(config));
    let now = now.iter().map(|(name, print)| ((*name).to_owned(), print.clone())).collect();
    if let Err(e) = state.note_settings(&now) {
        log::warn!("the settings that were tried are not remembered: {}", chain(&e));
    }
}

/// The fingerprints now, and whether they are those that were tried last.
pub(super) fn compare(config: &Config, state: Option<&State>) -> (Vec<(&'static str, String)>, Finding) {
    let now = fingerprints(&files(config));
    let noted = match state.map(State::settings).transpose() {
        Ok(noted) => noted.flatten(),
        Err(e) => return (now, Finding::unknown("settings", &e)),
    };
    let finding = judge(&now, noted.as_ref());
    (now, finding)
}

fn judge(now: &[(&'static str, String)], noted: Option<&BTreeMap<String, String>>) -> Finding {
    let Some(noted) = noted else {
        return Finding::new("settings", Level::Ok, "never tried here yet; mfs-promote --rehearse does it");
    };
    let changed = now.iter().filter(|(name, print)| noted.get(*name) != Some(print));
    let changed: Vec<_> = changed.map(|(name, _)| *name).collect();
    if changed.is_empty() {
        return Finding::new("settings", Level::Ok, "as in the last rehearsal or promotion");
    }
    let text = format!("{} changed since the last rehearsal or promotion: rehearse again", changed.join(" and "));
    Finding::new("settings", Level::Warning, text)
}

fn files(config: &Config) -> [(&'static str, PathBuf); 2] {
    [("mfsmaster.cfg", config.services.master_cfg.clone()), ("mfsexports.cfg", config.exports.clone())]
}

fn fingerprints(files: &[(&'static str, PathBuf)]) -> Vec<(&'static str, String)> {
    let print = |path: &PathBuf| std::fs::read(path).map_or_else(|_| "missing".to_owned(), |text| fingerprint(&text));
    files.iter().map(|(name, path)| (*name, print(path))).collect()
}

/// FNV-1a of 64 bits: the same on every machine, and enough to tell files of one administrator apart.
fn fingerprint(text: &[u8]) -> String {
    let hash = text
        .iter()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fingerprint_is_the_published_one() {
        // http://www.isthe.com/chongo/tech/comp/fnv/, test vectors.
        assert_eq!(fingerprint(b""), "cbf29ce484222325");
        assert_eq!(fingerprint(b"foobar"), "85944171f73967e8");
    }

    #[test]
    fn what_was_never_tried_is_told() {
        let now = [("mfsmaster.cfg", "1".to_owned()), ("mfsexports.cfg", "2".to_owned())];
        let noted = |exports: &str| {
            let pairs = [("mfsmaster.cfg", "1"), ("mfsexports.cfg", exports)];
            pairs.map(|(name, print)| (name.to_owned(), print.to_owned())).into()
        };
        assert_eq!(judge(&now, None).level, Level::Ok);
        assert_eq!(judge(&now, Some(&noted("2"))).level, Level::Ok);
        let changed = judge(&now, Some(&noted("3")));
        assert_eq!(changed.level, Level::Warning);
        assert!(changed.text.starts_with("mfsexports.cfg changed"), "{}", changed.text);
    }
}
