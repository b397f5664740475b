//! The hooks under test: our programs, or a folder of shell scripts to compare with.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use crate::Error;
use crate::Result;
use crate::error::file;
use crate::machine::Machine;

/// Our programs.
const PROGRAMS: &[&str] = &["vip-up", "vip-down", "mfs-promote"];
/// The scripts that a shell folder holds.
const SCRIPTS: &[&str] = &["vip-up", "vip-down", "setup.sh"];
/// What the hooks of [`Hooks::AddressOnly`] do.
const ADDRESS_ONLY: [(&str, &str); 2] = [
    ("vip-up", "#!/bin/sh\nexec ip addr add \"$2\"/16 dev \"$1\"\n"),
    ("vip-down", "#!/bin/sh\nexec ip addr del \"$2\"/16 dev \"$1\"\n"),
];
/// Where shell hooks are installed.
const SHELL_FOLDER: &str = "/usr/share/ucarp";

/// Which hooks ucarp calls on the machines of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hooks {
    /// Our programs from a folder, installed in `/usr/bin`.
    Ours {
        /// Where `vip-up`, `vip-down` and `mfs-promote` are.
        folder: PathBuf,
    },
    /// Shell scripts from a folder, installed in `/usr/share/ucarp`.
    Shell {
        /// Where `vip-up`, `vip-down` and `setup.sh` are.
        folder: PathBuf,
    },
    /// Hooks that only move the address: to test the lab itself.
    AddressOnly,
}

impl Hooks {
    /// Our programs, built from this workspace.
    pub fn ours() -> Result<Self> {
        built_programs().map(|folder| Self::Ours { folder })
    }

    /// The shell hooks of the folder that `LAB_SHELL_HOOKS` names, if it is set.
    pub fn shell_from_environment() -> Option<Self> {
        std::env::var_os("LAB_SHELL_HOOKS").map(|folder| Self::Shell { folder: folder.into() })
    }

    /// Reads the programs once and puts them into the machines, so that all machines run the same ones to the end.
    pub(crate) fn install<'a>(&self, machines: impl Iterator<Item = &'a Machine>) -> Result<()> {
        let read = |folder: &Path, name: &str| {
            let path = folder.join(name);
            fs::read(&path).map_err(file("read", path)).map(|content| (name.to_owned(), content))
        };
        let contents = match self {
            Self::Ours { folder } => PROGRAMS.iter().map(|name| read(folder, name)).collect::<Result<Vec<_>>>()?,
            Self::Shell { folder } => SCRIPTS.iter().map(|name| read(folder, name)).collect::<Result<Vec<_>>>()?,
            Self::AddressOnly => ADDRESS_ONLY.map(|(name, text)| (name.to_owned(), text.into())).to_vec(),
        };
        for machine in machines {
            for (name, content) in &contents {
                machine.install(&format!("{}/{name}", self.folder()), content, 0o755)?;
            }
        }
        Ok(())
    }

    /// Where they are installed.
    fn folder(&self) -> &'static str {
        match self {
            Self::Ours { .. } => "/usr/bin",
            Self::Shell { .. } | Self::AddressOnly => SHELL_FOLDER,
        }
    }

    /// The scripts that ucarp calls, up and down.
    pub(crate) fn scripts(&self) -> [String; 2] {
        ["vip-up", "vip-down"].map(|name| format!("{}/{name}", self.folder()))
    }

    /// Shell hooks damage a master that runs already when its ucarp starts. So the first `setup.sh` on the first master
    /// only leaves a mark; [`Hooks::arm`] puts the real one back.
    pub(crate) fn hold_back(&self, first: &Machine) -> Result<()> {
        if let Self::Shell { .. } = self {
            let path = first.root()?.join("usr/share/ucarp/setup.sh");
            fs::write(&path, "#!/bin/sh\n: > /run/held-back\n").map_err(file("write", &path))?;
        }
        Ok(())
    }

    /// Whether the first call of the hooks is over, where they were held back.
    pub(crate) fn were_called(&self, first: &Machine) -> bool {
        match self {
            Self::Ours { .. } | Self::AddressOnly => true,
            Self::Shell { .. } => first.root().is_ok_and(|root| root.join("run/held-back").exists()),
        }
    }

    /// Ends what [`Hooks::hold_back`] began.
    pub(crate) fn arm(&self, first: &Machine) -> Result<()> {
        if let Self::Shell { folder } = self {
            let (from, to) = (folder.join("setup.sh"), first.root()?.join("usr/share/ucarp/setup.sh"));
            let content = fs::read(&from).map_err(file("read", &from))?;
            fs::write(&to, content).map_err(file("write", &to))?;
        }
        Ok(())
    }
}

/// The folder of this workspace's programs, built in the profile of the running executable.
///
/// Under cargo they are built now, once per process. Elsewhere (a demo that was installed or started by hand) they must lie
/// next to the executable.
pub fn built_programs() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(|| find_programs(PROGRAMS)).clone().map_err(Error::Programs)
}

/// The Debian package of this workspace; it and the other formats are built now, once per process, in `target/package`.
pub fn debian_package() -> Result<PathBuf> {
    static BUILT: OnceLock<std::result::Result<PathBuf, String>> = OnceLock::new();
    BUILT.get_or_init(package).clone().map_err(Error::Programs)
}

fn package() -> std::result::Result<PathBuf, String> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let script = top.join("scripts/package");
    let output = Command::new(&script).output().map_err(|error| format!("cannot run {}: {error}", script.display()))?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let paths = printed.lines().map(|line| top.join(line));
    let package = paths.filter(|_| output.status.success()).find(|path| path.extension().is_some_and(|it| it == "deb"));
    package.ok_or_else(|| {
        let said = String::from_utf8_lossy(&output.stderr);
        format!("{}: {}\n{printed}{said}", script.display(), output.status)
    })
}

/// A program of this crate, next to the running executable.
pub(crate) fn own_program(name: &str) -> Result<PathBuf> {
    let folder = profile_folder().map_err(Error::Programs)?;
    let path = folder.join(name);
    if path.is_file() {
        return Ok(path);
    }
    build(&folder).map_err(Error::Programs)?;
    Ok(path)
}

fn find_programs(names: &[&str]) -> std::result::Result<PathBuf, String> {
    let folder = profile_folder()?;
    if std::env::var_os("CARGO").is_some() {
        build(&folder)?;
    }
    match names.iter().find(|name| !folder.join(name).is_file()) {
        None => Ok(folder),
        Some(name) => Err(format!("{name} is not in {}: run `cargo build --workspace --bins`", folder.display())),
    }
}

/// `target/debug` or `target/release`, from the path of this executable.
fn profile_folder() -> std::result::Result<PathBuf, String> {
    let own = std::env::current_exe().map_err(|error| format!("cannot find my own executable: {error}"))?;
    let folder = own.parent().ok_or("my own executable is in no folder")?;
    let aside = folder.ends_with("deps") || folder.ends_with("examples");
    Ok(if aside { folder.parent().unwrap_or(folder) } else { folder }.to_owned())
}

fn build(folder: &Path) -> std::result::Result<(), String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--quiet", "--workspace", "--bins"]).current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    if folder.ends_with("release") {
        command.arg("--release");
    }
    if let Some(target) = folder.parent() {
        command.arg("--target-dir").arg(target);
    }
    let output = command.output().map_err(|error| format!("cannot run cargo: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("cargo build --workspace --bins: {}\n{}", output.status, String::from_utf8_lossy(&output.stderr)))
}
