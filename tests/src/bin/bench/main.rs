//! A small benchmark: how long a takeover and the hook itself last, with our programs and with shell hooks to compare.

mod hook;
mod page;
mod power_cut;
mod stats;

use std::error::Error;
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use lab::Hooks;

use crate::hook::HookTimes;
use crate::power_cut::PowerCut;

/// Measures power cuts of the master under load, and vip-up alone: our programs, and in turn shell hooks if there are
/// any. Writes a page with the results. Needs root.
#[derive(Parser)]
struct Args {
    /// Compare with the shell hooks (vip-up, vip-down, setup.sh) of this folder
    #[arg(long, value_name = "DIR")]
    shell_hooks: Option<PathBuf>,
    /// Power cuts with each kind of hooks
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    runs: u32,
    /// Calls of each kind of vip-up
    #[arg(long, value_name = "N", default_value_t = 300, value_parser = clap::value_parser!(u32).range(200..))]
    calls: u32,
    /// Where the page goes
    #[arg(long, value_name = "FILE", default_value = "docs/benchmarks.md")]
    output: PathBuf,
    /// How this program calls itself inside the hook's own machine
    #[arg(long, hide = true)]
    inside_hook_machine: bool,
}

/// Everything measured.
struct Measured {
    ours: Vec<PowerCut>,
    shell: Option<Vec<PowerCut>>,
    hook: HookTimes,
}

fn main() -> ExitCode {
    let args = Args::parse();
    let result =
        if args.inside_hook_machine { hook::inside(args.shell_hooks.as_deref(), args.calls) } else { benchmark(&args) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn benchmark(args: &Args) -> Result<(), Box<dyn Error>> {
    let ours = Hooks::ours()?;
    let folder = args.shell_hooks.as_ref().map(fs::canonicalize).transpose()?;
    let page_folder = args.output.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(missing) = page_folder.filter(|parent| !parent.is_dir()) {
        return Err(format!("{} is not a folder", missing.display()).into());
    }
    println!("vip-up, {} calls of each kind", args.calls);
    let hook = hook::measure(folder.as_deref(), args.calls)?;
    let shell = folder.map(|folder| Hooks::Shell { folder });
    let mut measured = Measured { ours: Vec::new(), shell: shell.as_ref().map(|_| Vec::new()), hook };
    for run in 1..=args.runs {
        println!("run {run} of {}", args.runs);
        measured.ours.push(power_cut("ours", &ours)?);
        if let (Some(hooks), Some(done)) = (&shell, &mut measured.shell) {
            done.push(power_cut("shell", hooks)?);
        }
    }
    let results = page::results(&measured);
    println!("\n{results}");
    fs::write(&args.output, page::page(&measured, &results)?)?;
    println!("written to {}", args.output.display());
    Ok(())
}

/// One power cut, and a line about it.
fn power_cut(name: &str, hooks: &Hooks) -> Result<PowerCut, lab::Error> {
    let done = power_cut::measure(hooks)?;
    println!("  {name:5}  {done}");
    Ok(done)
}
