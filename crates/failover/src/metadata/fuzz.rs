//! Random damage to real files: whatever is in a data folder, the readers and the plan neither panic nor use much
//! memory.
//!
//! Every execution is a function of the seed and its own number; a failure prints both, and they repeat it. The usual
//! test run is short. The long one is
//!
//! ```text
//! FUZZ_EXECUTIONS=10000000 FUZZ_SETS=100000 cargo test --release -p failover --lib metadata::fuzz -- --nocapture
//! ```
//!
//! `FUZZ_SEED` chooses the seed, `FUZZ_ONLY` one execution.

mod damage;
mod readers;
mod sets;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use fastrand::Rng;

/// More than the largest block that any reader keeps, and far less than what a careless one would need.
const MOST_MEMORY: u64 = 96 * 1024 * 1024;

/// The execution that the panic hook names.
static CURRENT: AtomicU64 = AtomicU64::new(0);

/// The driver measures the memory of its process, so it gets a process without other tests: this program, run again.
#[test]
fn no_damage_makes_a_reader_panic_or_swell() {
    let mut driver = Command::new(std::env::current_exe().unwrap());
    driver.args(["--exact", "metadata::fuzz::driver", "--ignored", "--nocapture"]);
    let output = driver.output().unwrap();
    let text = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&text));
    assert!(output.status.success(), "{}", output.status);
}

#[test]
#[ignore = "run by no_damage_makes_a_reader_panic_or_swell, in a process of its own"]
fn driver() {
    name_the_execution_in_a_panic();
    readers::endless_inputs();

    let dir = folder();
    let readers = readers::Readers::new();
    run("readers", setting("FUZZ_EXECUTIONS").unwrap_or(20_000), |rng, number| readers.execute(rng, number));
    let sets = sets::Sets::new(dir.path());
    run("inventory, plan and stage", setting("FUZZ_SETS").unwrap_or(250), |rng, _| sets.execute(rng));
    println!("{}", sets.summary());
}

fn run(what: &str, executions: u64, mut execute: impl FnMut(&mut Rng, u64)) {
    let start = Instant::now();
    for number in setting("FUZZ_ONLY").map_or(0..executions, |only| only..only + 1) {
        CURRENT.store(number, Ordering::Relaxed);
        execute(&mut Rng::with_seed(seed().rotate_left(32) ^ number), number);
    }
    let peak = peak_memory();
    assert!(peak < MOST_MEMORY, "{what}: {peak} bytes of memory");
    println!("{what}: {executions} executions in {:.1?}, peak {} KiB", start.elapsed(), peak / 1024);
}

fn seed() -> u64 {
    setting("FUZZ_SEED").unwrap_or(1)
}

/// The number in an environment variable.
fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number"))
}

fn name_the_execution_in_a_panic() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let number = CURRENT.load(Ordering::Relaxed);
        eprintln!("execution {number}; to repeat it: FUZZ_SEED={} FUZZ_ONLY={number}", seed());
        usual(info);
    }));
}

/// The most memory this process has ever had resident, in bytes.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let kibibytes: u64 = line.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    kibibytes * 1024
}

/// In memory where that is possible: the sets are written millions of times.
fn folder() -> tempfile::TempDir {
    let shared = Path::new("/dev/shm");
    if shared.is_dir() { tempfile::tempdir_in(shared).unwrap() } else { tempfile::tempdir().unwrap() }
}

/// The sets of real files.
fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}
