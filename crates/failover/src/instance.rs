//! Which MooseFS service of this machine: its name, and the files and folders that are its own.
//!
//! Two file systems on one machine have two ucarps, started with `-x one` and `-x two`. Each is an instance with a
//! configuration, locks, tickets and records of its own, and neither knows anything of the other. The instance without a name
//! is that of a ucarp without `-x`.

use std::fmt;
use std::path::{Path, PathBuf};

/// The folder of `mfspromote.cfg`, and of `mfspromote-NAME.cfg` for an XPARAM of NAME.
pub(crate) const CONFIGURATION: &str = "/etc/mfs";
/// Locks and tickets: what ends with the machine's power.
const RUN: &str = "/run/moosefs-ucarp";
/// Records, and what is remembered.
const STATE: &str = "/var/lib/moosefs-ucarp";
/// What the names of the folders of a named instance begin with. Nothing else in [`RUN`] and [`STATE`] does.
const FOLDER: &str = "instance-";
/// A longer name is a mistake, and would not fit into the names of files.
const LONGEST: usize = 64;

/// An XPARAM that is no name.
#[derive(Debug, thiserror::Error)]
#[error(
    "the XPARAM {0:?} is not a name, and names no configuration file; start ucarp with -x NAME for \
     {CONFIGURATION}/mfspromote-NAME.cfg (at most {LONGEST} letters, digits, '-', '_' and '.', '-' and '.' not first), \
     or without -x for {CONFIGURATION}/mfspromote.cfg"
)]
pub(crate) struct BadName(String);

/// A MooseFS service of this machine.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Instance {
    name: Option<String>,
}

impl Instance {
    /// The instance of a ucarp with this XPARAM.
    pub(crate) fn of_xparam(xparam: Option<&str>) -> Result<Self, BadName> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        let is_name = |name: &str| {
            !name.is_empty() && name.len() <= LONGEST && !name.starts_with(['-', '.']) && name.chars().all(plain)
        };
        match xparam {
            Some(name) if !is_name(name) => Err(BadName(name.to_owned())),
            xparam => Ok(Self { name: xparam.map(str::to_owned) }),
        }
    }

    /// The instance that a configuration file belongs to: a file of another name is the one of the instance without a name.
    pub(crate) fn of_file(path: &Path) -> Self {
        let file =
            path.file_name().and_then(|file| file.to_str()).filter(|_| path.parent() == Some(CONFIGURATION.as_ref()));
        let name = file.and_then(|file| file.strip_prefix("mfspromote-")?.strip_suffix(".cfg"));
        Self::of_xparam(name).unwrap_or_default()
    }

    /// Its name, which is the XPARAM of its ucarp.
    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// How its messages in the system log begin: one of several is told from the others.
    pub(crate) fn ident(&self, program: &str) -> String {
        self.name.as_ref().map_or(program.to_owned(), |name| format!("{program}-{name}"))
    }

    /// Its configuration file. That of an instance with a name must exist.
    pub(crate) fn file(&self) -> PathBuf {
        let name = self.name.as_ref().map_or("mfspromote.cfg".to_owned(), |name| format!("mfspromote-{name}.cfg"));
        Path::new(CONFIGURATION).join(name)
    }

    /// Its configuration file if it has a name: then the file must exist.
    pub(crate) fn named_file(&self) -> Option<PathBuf> {
        self.name.as_ref().map(|_| self.file())
    }

    /// Where its locks and its newest ticket are; root's alone. Its parent, if it has a name, is that of the one without.
    pub(crate) fn run_folder(&self) -> PathBuf {
        self.below(RUN)
    }

    /// Where its records are, and what it remembers; as for [`Instance::run_folder`].
    pub(crate) fn state_folder(&self) -> PathBuf {
        self.below(STATE)
    }

    fn below(&self, folder: &str) -> PathBuf {
        self.name.as_ref().map_or(folder.into(), |name| Path::new(folder).join(format!("{FOLDER}{name}")))
    }
}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "the instance {name}"),
            None => f.write_str("the instance without a name"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(name: &str) -> Instance {
        Instance::of_xparam(Some(name)).unwrap()
    }

    #[test]
    fn each_instance_has_files_of_its_own_and_the_one_without_a_name_those_of_earlier_releases() {
        let [none, one, two] = [Instance::default(), named("one"), named("two")];
        assert_eq!(none.file(), Path::new("/etc/mfs/mfspromote.cfg"));
        assert_eq!(none.run_folder(), Path::new("/run/moosefs-ucarp"));
        assert_eq!(none.state_folder(), Path::new("/var/lib/moosefs-ucarp"));
        assert_eq!([none.ident("vip-up"), one.ident("vip-up")], ["vip-up", "vip-up-one"]);
        assert_eq!(one.file(), Path::new("/etc/mfs/mfspromote-one.cfg"));
        assert_eq!(one.run_folder(), Path::new("/run/moosefs-ucarp/instance-one"));
        assert_eq!(two.state_folder(), Path::new("/var/lib/moosefs-ucarp/instance-two"));
    }

    #[test]
    fn an_xparam_names_a_file_and_nothing_else() {
        for good in ["vip2", "a", "_a", "A.b-c_d", "1", &"x".repeat(64)] {
            assert_eq!(named(good).name(), Some(good));
        }
        for bad in
            ["", "../evil", "a/b", ".hidden", "..", "-x", "white space", "a\nb", "a\0", "ü", "a%b", &"x".repeat(65)]
        {
            let refused = Instance::of_xparam(Some(bad)).unwrap_err().to_string();
            assert!(refused.contains(&format!("{bad:?}")) && refused.contains("-x NAME"), "{refused}");
        }
    }

    #[test]
    fn a_configuration_file_belongs_to_the_instance_that_it_is_named_after() {
        for instance in [Instance::default(), named("one"), named("a.b")] {
            assert_eq!(Instance::of_file(&instance.file()), instance);
        }
        for other in
            ["/etc/mfs/mfspromote-.cfg", "/root/mfspromote-one.cfg", "/etc/mfs/other.cfg", "mfspromote-one.cfg", "/"]
        {
            assert_eq!(Instance::of_file(Path::new(other)), Instance::default(), "{other}");
        }
    }
}
