//! The benchmark: what a failover costs, with our programs and with shell hooks to compare. Each part is a file and makes
//! a section of the page.

mod alarms;
mod archive;
mod bed;
mod breakdown;
mod election;
mod engine;
mod hook;
mod hot;
mod inputs;
mod interruptions;
mod outage;
mod page;
mod plot;
mod power_cut;
mod sizes;
mod stats;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;

use crate::page::Section;

type Result<T> = std::result::Result<T, Box<dyn std::error::Error>>;

/// Measures failovers on whole clusters, and their parts alone: our programs, and shell hooks if there are any.
/// Writes a page with the results, and pictures beside it. Needs root.
#[derive(Parser)]
struct Args {
    /// Compare with the shell hooks (vip-up, vip-down, setup.sh) of this folder
    #[arg(long, value_name = "DIR")]
    shell_hooks: Option<PathBuf>,
    /// Fewer runs and smaller trees, in less than five minutes; shows the results and writes no page
    #[arg(long)]
    quick: bool,
    /// Only these parts, separated by commas
    #[arg(long, value_name = "PART", value_delimiter = ',', value_parser = PARTS.map(|(name, _)| name))]
    only: Vec<String>,
    /// Runs of each kind
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Where the page and its pictures go
    #[arg(long, value_name = "FOLDER", default_value = "docs")]
    output: PathBuf,
    /// How this program calls itself for work that is to be measured alone
    #[arg(long, hide = true, num_args = 1.., allow_hyphen_values = true, value_name = "WORDS")]
    alone: Vec<String>,
}

/// What all parts have to know.
struct Setup {
    shell: Option<PathBuf>,
    quick: bool,
    runs: u32,
}

type Part = fn(&Setup) -> Result<Section>;

/// In the order of the page.
const PARTS: [(&str, Part); 10] = [
    ("outage", outage::section),
    ("recommended", outage::recommended),
    ("interruptions", interruptions::section),
    ("sizes", sizes::section),
    ("hot", hot::section),
    ("hook", hook::section),
    ("engine", engine::section),
    ("archive", archive::section),
    ("election", election::section),
    ("alarms", alarms::section),
];

fn main() -> ExitCode {
    let args = Args::parse();
    let result = match args.alone.split_first() {
        Some((what, words)) => alone(what, words),
        None => benchmark(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn alone(what: &str, words: &[String]) -> Result<()> {
    match what {
        "hook" => hook::inside(words),
        "command" => engine::inside(words),
        "listen" => election::listen(words),
        _ => Err(format!("{what} is not measured alone").into()),
    }
}

fn benchmark(args: &Args) -> Result<()> {
    if !args.output.is_dir() {
        return Err(format!("{} is not a folder", args.output.display()).into());
    }
    let shell = args.shell_hooks.as_ref().map(fs::canonicalize).transpose()?;
    let setup = Setup { shell, quick: args.quick, runs: if args.quick { 1 } else { args.runs } };
    let mut sections = Vec::new();
    let mut failed = Vec::new();
    for (name, part) in
        PARTS.iter().filter(|(name, _)| args.only.is_empty() || args.only.iter().any(|only| only == name))
    {
        println!("{name}");
        match part(&setup) {
            Ok(section) => sections.push(section),
            Err(error) => {
                eprintln!("  {name} could not be measured: {error}");
                failed.push(*name);
            }
        }
        // After each part, so that a long run that is ended early keeps its results.
        if !args.quick {
            write(&args.output, &sections)?;
        }
    }
    println!("\n{}", page::page(&sections)?);
    if failed.is_empty() { Ok(()) } else { Err(format!("not measured: {}", failed.join(", ")).into()) }
}

/// Writes the page and its pictures.
fn write(folder: &Path, sections: &[Section]) -> Result<()> {
    for (name, picture) in sections.iter().flat_map(|section| &section.pictures) {
        fs::write(folder.join(name), picture)?;
    }
    Ok(fs::write(folder.join("benchmarks.md"), page::page(sections)?)?)
}
