//! Writes what is made of the command lines and of the documentation: manual pages, shell completions, and the commented
//! example of `mfspromote.cfg`. Run when a package is built (`scripts/package`), never installed.
//!
//! Usage: `pages FOLDER`, which is made if it is missing.

mod example;
mod markdown;
mod program;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs, io};

use clap::CommandFactory;
use clap_complete::Shell;
use failover::cli::{Init, Promote, VipDown, VipUp};

/// The reference that the page of section 5 and the example are made of.
const CONFIGURATION: &str = include_str!("../../../docs/configuration.md");

/// What is wrong.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("usage: pages FOLDER")]
    Usage,
    #[error("cannot write {}", path.display())]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot render the page of {program}")]
    Render {
        program: String,
        #[source]
        source: io::Error,
    },
    #[error("docs/configuration.md has no section {0:?} with a table")]
    NoTable(&'static str),
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let cause = std::error::Error::source(&error).map_or(String::new(), |cause| format!(": {cause}"));
            eprintln!("pages: {error}{cause}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<(), Error> {
    let folder = env::args_os().nth(1).map(PathBuf::from).ok_or(Error::Usage)?;
    let pages = [
        (Promote::command(), include_str!("../text/mfs-promote.md")),
        (VipUp::command(), include_str!("../text/vip-up.md")),
        (VipDown::command(), include_str!("../text/vip-down.md")),
    ];
    for (command, text) in pages {
        let page = program::page(&command, text)?;
        write(&folder.join("man").join(format!("{}.8", command.get_name())), &page)?;
    }
    write(&folder.join("man/mfspromote.cfg.5"), &markdown::configuration_page(CONFIGURATION))?;
    write(&folder.join("mfspromote.cfg"), &example::example(CONFIGURATION)?)?;
    for (shell, name) in [(Shell::Bash, "mfs-promote"), (Shell::Zsh, "_mfs-promote"), (Shell::Fish, "mfs-promote.fish")]
    {
        let mut script = Vec::new();
        clap_complete::generate(
            shell,
            &mut program::visible(&Promote::command(), &Init::command()),
            "mfs-promote",
            &mut script,
        );
        let path = folder.join("completions").join(name);
        write(&path, &String::from_utf8_lossy(&script))?;
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |source| Error::Write { path: path.to_owned(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    fs::write(path, text).map_err(failed)
}
