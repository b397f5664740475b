//! The files that a set-up writes: what changes in them, and how they are written.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::Write as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;

use crate::sys::folder::{self, Folder};
use crate::sys::trust::changeable;
use crate::ucarp::Options;

/// How long a metalogger waits before it connects again, 5 s by default.
pub(super) const DELAY: &str = "MASTER_RECONNECTION_DELAY";
/// What a new file is called until it is complete.
const UNFINISHED: &str = ".moosefs-ucarp.new";

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Others could exchange what is written.
    #[error("{} can be written by others than root; run: chown root {0} && chmod go-w {0}", path.display())]
    Unsafe {
        /// The folder.
        path: PathBuf,
    },
    /// The folder, or the file in it.
    #[error(transparent)]
    Folder(#[from] folder::Error),
    /// The content.
    #[error("cannot write {}; nothing was changed in it", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// A change of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Edit {
    /// The file.
    pub(super) path: PathBuf,
    /// Its text now; `None` if it is not there.
    pub(super) before: Option<String>,
    /// Its text afterwards. Line by line the same as before, and more lines at the end.
    pub(super) after: String,
    /// Who may read a new file.
    pub(super) mode: u32,
    /// What is shown in place of the text, if that is nobody's business.
    pub(super) instead: Option<&'static str>,
}

impl Edit {
    /// Writes it completely, or leaves the file as it was.
    pub(super) fn write(&self) -> Result<(), Error> {
        let failed = |source| Error::Write { path: self.path.clone(), source };
        // One that is a link stays one.
        let path = if self.before.is_some() { self.path.canonicalize().map_err(failed)? } else { self.path.clone() };
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        if let Some(path) = changeable(parent).map_err(failed)? {
            return Err(Error::Unsafe { path });
        }
        let mode = fs::metadata(&path).map_or(self.mode, |there| there.permissions().mode() & 0o7777);
        let (folder, unfinished) = (Folder::open(parent)?, OsStr::new(UNFINISHED));
        match folder.remove(unfinished) {
            Err(e) if !e.is_not_found() => return Err(e.into()),
            _ => (),
        }
        let mut file = folder.create(unfinished, 0o600)?;
        let written = file.write_all(self.after.as_bytes());
        let written = written.and_then(|()| file.set_permissions(fs::Permissions::from_mode(mode)));
        written.and_then(|()| file.sync_all()).map_err(failed)?;
        folder.replace(unfinished, name)?;
        Ok(folder.sync()?)
    }
}

impl fmt::Display for Edit {
    /// As a diff without the lines that stay.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let new = if self.before.is_none() { format!(" (new, mode {:04o})", self.mode) } else { String::new() };
        writeln!(f, "{}{new}", self.path.display())?;
        if let Some(instead) = self.instead {
            return writeln!(f, "  + {instead}");
        }
        if self.after.is_empty() {
            return writeln!(f, "  (empty: the defaults)");
        }
        let mut before = self.before.as_deref().unwrap_or_default().lines();
        for line in self.after.lines() {
            let old = before.next();
            if old != Some(line) {
                if let Some(old) = old {
                    writeln!(f, "  - {old}")?;
                }
                writeln!(f, "  + {line}")?;
            }
        }
        Ok(())
    }
}

/// The value of `name` in a file of `NAME=value` for a shell; the last one counts. Quotes around it are dropped.
pub(super) fn value(text: &str, name: &str) -> Option<String> {
    let value = text.lines().rev().find_map(|line| line.trim_start().strip_prefix(name)?.strip_prefix('='))?.trim_end();
    let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
    Some(quoted.unwrap_or(value).to_owned())
}

/// The same text with `name` set: in its line, or in a new one at the end.
pub(super) fn with_value(text: &str, name: &str, to: &str) -> String {
    if value(text, name).as_deref() == Some(to) {
        return text.to_owned();
    }
    let new = if to.contains(' ') { format!("{name}=\"{to}\"") } else { format!("{name}={to}") };
    let mut lines: Vec<&str> = text.lines().collect();
    let sets = |line: &&str| line.trim_start().strip_prefix(name).is_some_and(|rest| rest.starts_with('='));
    match lines.iter().rposition(sets) {
        Some(at) => lines[at] = &new,
        None => lines.push(&new),
    }
    lines.join("\n") + "\n"
}

/// The metalogger's configuration with the shortest [`DELAY`], in a line at the end.
pub(super) fn with_shortest_delay(text: &str) -> String {
    let end = if text.is_empty() || text.ends_with('\n') { "" } else { "\n" };
    format!("{text}{end}{DELAY} = 1\n")
}

/// The number of the first line that systemd and a shell could read as something else than `NAME=value` with plain characters.
pub(super) fn odd_line(text: &str) -> Option<usize> {
    let is_plain = |line: &str| {
        let Some((name, value)) = line.split_once('=') else { return false };
        let quoted = ['"', '\''].iter().find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        let plain = |c: char| c.is_ascii_graphic() && !"\"'\\$`;#&|<>()*?[]~!".contains(c);
        name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && match quoted {
                Some(value) => value.chars().all(|c| plain(c) || c == ' '),
                None => value.chars().all(plain),
            }
    };
    // With the carriage return of a line that has one.
    text.split('\n')
        .position(|line| !(line.trim().is_empty() || line.starts_with('#') || is_plain(line.trim_end_matches(' '))))
        .map(|at| at + 1)
}

/// ucarp's options with this advskew: of several, the last one counts.
pub(super) fn with_skew(options: &str, skew: u8) -> String {
    let mut kept = Vec::new();
    let mut words = options.split_whitespace();
    while let Some(word) = words.next() {
        match word.strip_prefix("-k").or_else(|| word.strip_prefix("--advskew")) {
            Some("") => drop(words.next()),
            Some(_) => (),
            None => kept.push(word),
        }
    }
    let skew = format!("-k {skew}");
    kept.push(&skew);
    kept.join(" ")
}

/// ucarp's options, as it reads them.
pub(super) fn parsed(options: &str) -> Options {
    let words: Vec<_> = std::iter::once("ucarp").chain(options.split_whitespace()).collect();
    Options::parse(&words)
}

/// `/etc/hosts` with `name` for `vip` and for no other address.
pub(super) fn with_host(text: &str, name: &str, vip: Ipv4Addr) -> String {
    let entry = format!("{vip} {name}");
    let mut placed = false;
    let mut lines: Vec<String> = Vec::new();
    for line in text.lines() {
        let (words, comment) = line.split_at(line.find('#').unwrap_or(line.len()));
        let mut words: Vec<&str> = words.split_whitespace().collect();
        let (address, names) = words.split_first().map_or(("", &[][..]), |(first, rest)| (*first, rest));
        if !names.contains(&name) {
            lines.push(line.to_owned());
        } else if address.parse() == Ok(vip) {
            placed = true;
            lines.push(line.to_owned());
        } else if names.iter().all(|other| *other == name) {
            lines.push(if placed { format!("# {line}") } else { entry.clone() });
            placed = true;
        } else {
            words.retain(|word| *word != name);
            lines.push(format!("{}{}{comment}", words.join(" "), if comment.is_empty() { "" } else { " " }));
        }
    }
    if !placed {
        lines.push(entry);
    }
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use proptest::prelude::*;

    const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);

    #[test]
    fn a_value_is_set_in_its_own_line_or_in_a_new_one() {
        let text = "# VIP=comment\nVIP=\nOPTIONS=\"-k 50\"\n";
        assert_eq!(value(text, "VIP").as_deref(), Some(""));
        assert_eq!(value(text, "OPTIONS").as_deref(), Some("-k 50"));
        assert_eq!(value(text, "VHID"), None);
        assert_eq!(with_value(text, "VIP", "10.0.0.1"), "# VIP=comment\nVIP=10.0.0.1\nOPTIONS=\"-k 50\"\n");
        assert_eq!(with_value(text, "OPTIONS", "-k 100"), "# VIP=comment\nVIP=\nOPTIONS=\"-k 100\"\n");
        assert_eq!(with_value("A=1", "VHID", "7"), "A=1\nVHID=7\n");
        assert_eq!(with_value(text, "OPTIONS", "-k 50"), text, "what is right stays as it is written");
        assert_eq!(value("VIP=1\nVIP='2'\n", "VIP").as_deref(), Some("2"), "the last one counts");
    }

    #[test]
    fn a_skew_replaces_the_one_that_is_there() {
        for (options, wanted) in [
            ("", "-k 50"),
            ("-k 100", "-k 50"),
            ("-k100 -b 2", "-b 2 -k 50"),
            ("--advskew=7 -r 4", "-r 4 -k 50"),
            ("-r 4 --advskew 7", "-r 4 -k 50"),
        ] {
            assert_eq!(with_skew(options, 50), wanted, "{options}");
            assert_eq!(parsed(wanted).advskew, 50);
        }
        assert_eq!(parsed(&with_skew("-zk100 -r 2", 50)).advskew, 50, "in a cluster of letters");
    }

    #[test]
    fn a_line_that_systemd_and_a_shell_read_differently_is_found() {
        let good = "# VIP = $x\n\nVIP=1.2.3.4\nOPTIONS=\"-k 50 -r 2\"\nOPTIONS='-k 1'\nXPARAM=\n";
        assert_eq!(odd_line(good), None);
        let bad =
            ["VIP = 1", "export VIP=1", "OPTIONS=\"-k 50\" # second", "VIP=$x", "VIP=\"1", "VIP=1 2", "VIP=1\r", "x"];
        for line in bad {
            assert_eq!(odd_line(&format!("{good}{line}\n")), Some(7), "{line:?}");
        }
        assert_eq!(odd_line(include_str!("../../../../scripts/packaging/moosefs-ucarp.default")), None);
    }

    #[test]
    fn a_name_has_one_address_and_others_keep_theirs() {
        for (text, wanted) in [
            ("127.0.0.1 localhost\n", "127.0.0.1 localhost\n172.16.0.99 mfsmaster\n"),
            ("172.16.0.11 mfsmaster\n", "172.16.0.99 mfsmaster\n"),
            ("172.16.0.11 m1 mfsmaster # old\n", "172.16.0.11 m1 # old\n172.16.0.99 mfsmaster\n"),
            ("172.16.0.99\tmfs mfsmaster\n", "172.16.0.99\tmfs mfsmaster\n"),
            ("1.1.1.1 mfsmaster\n2.2.2.2 mfsmaster\n", "172.16.0.99 mfsmaster\n# 2.2.2.2 mfsmaster\n"),
            ("# 1.1.1.1 mfsmaster\n", "# 1.1.1.1 mfsmaster\n172.16.0.99 mfsmaster\n"),
            ("1.1.1.1 mfsmaster.example\n", "1.1.1.1 mfsmaster.example\n172.16.0.99 mfsmaster\n"),
        ] {
            assert_eq!(with_host(text, "mfsmaster", VIP), wanted, "{text}");
        }
    }

    #[test]
    fn a_file_is_replaced_with_its_mode_and_links_stay() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        let (file, link) = (root.join("values"), root.join("link"));
        fs::write(&file, "A=1\n").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
        std::os::unix::fs::symlink("values", &link).unwrap();
        let edit = |path: &Path, before: Option<&str>, after: &str| Edit {
            path: path.to_owned(),
            before: before.map(str::to_owned),
            after: after.to_owned(),
            mode: 0o600,
            instead: None,
        };
        edit(&link, Some("A=1\n"), "A=2\n").write().unwrap();
        assert_eq!(fs::read_to_string(&file).unwrap(), "A=2\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(link.is_symlink());
        edit(&root.join("new"), None, "x").write().unwrap();
        assert_eq!(fs::metadata(root.join("new")).unwrap().permissions().mode() & 0o777, 0o600);
        fs::set_permissions(&root, fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(edit(&file, Some("A=2\n"), "A=3\n").write(), Err(Error::Unsafe { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "A=2\n");
    }

    #[test]
    fn a_change_is_shown_as_a_diff_and_a_secret_not_at_all() {
        let edit = |before: Option<&str>, after: &str, instead| Edit {
            path: "/etc/x".into(),
            before: before.map(str::to_owned),
            after: after.to_owned(),
            mode: 0o600,
            instead,
        };
        assert_eq!(
            edit(Some("A=1\nB=2\n"), "A=1\nB=3\nC=4\n", None).to_string(),
            "/etc/x\n  - B=2\n  + B=3\n  + C=4\n"
        );
        let secret = edit(None, "secret\n", Some("a password")).to_string();
        assert_eq!(secret, "/etc/x (new, mode 0600)\n  + a password\n");
    }

    proptest! {
        #[test]
        fn whatever_the_file_holds_a_name_is_set_once_and_stays(text in "([a-z0-9.# \t]{0,12}(mfsmaster)?\n?){0,6}") {
            let once = with_host(&text, "mfsmaster", VIP);
            prop_assert_eq!(&with_host(&once, "mfsmaster", VIP), &once);
            prop_assert!(once.lines().any(|line| line.starts_with("172.16.0.99")));
        }

        #[test]
        fn what_was_set_is_read_back(text in "\\PC{0,40}", to in "[a-z0-9./ -]{0,12}") {
            let to = to.trim().to_owned();
            prop_assert_eq!(value(&with_value(&text, "OPTIONS", &to), "OPTIONS"), Some(to));
        }
    }
}
