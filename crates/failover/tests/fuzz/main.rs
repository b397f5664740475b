//! Random damage to real files: whatever lies in a data folder, the readers and the plan neither panic nor swell.
//!
//! A plain driver that runs on stable Rust. Every execution is a function of the seed and its own number, so a failure
//! is repeated by the two numbers it prints. The normal test run is short; the long one is
//!
//! ```text
//! cargo test --release -p failover --test fuzz -- --executions 10000000 --sets 100000 --seed 1
//! ```

mod mutate;
mod readers;
mod sets;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use mutate::Rng;

/// More than the largest block that any reader keeps, and far less than what a careless one would need.
const MOST_MEMORY: u64 = 96 * 1024 * 1024;

/// What the panic hook names.
static CURRENT: AtomicU64 = AtomicU64::new(0);

struct Arguments {
    executions: u64,
    sets: u64,
    seed: u64,
    only: Option<u64>,
}

impl Arguments {
    /// Words that are not ours are the test harness's: `cargo test` hands the same ones to every program.
    fn take() -> Self {
        let mut found = Self { executions: 20_000, sets: 250, seed: 1, only: None };
        let mut words = std::env::args().skip(1);
        while let Some(word) = words.next() {
            let mut number = || words.next().and_then(|n| n.parse().ok()).expect("a number");
            match word.as_str() {
                "--executions" => found.executions = number(),
                "--sets" => found.sets = number(),
                "--seed" => found.seed = number(),
                "--only" => found.only = Some(number()),
                _ => {}
            }
        }
        found
    }
}

fn main() {
    let arguments = Arguments::take();
    name_the_execution_in_a_panic(arguments.seed);
    println!("\nrunning 3 tests");
    readers::endless_inputs();
    println!("test endless inputs ... ok, peak {} KiB", peak_memory() / 1024);

    let dir = folder();
    let readers = readers::Readers::new(dir.path());
    run("readers", &arguments, arguments.executions, |rng, number| readers.execute(rng, number));
    let sets = sets::Sets::new(dir.path());
    run("inventory, plan and stage", &arguments, arguments.sets, |rng, _| sets.execute(rng));
    println!("{}", sets.summary());
    println!("\ntest result: ok. 3 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out\n");
}

fn run(what: &str, arguments: &Arguments, executions: u64, mut execute: impl FnMut(&mut Rng, u64)) {
    let start = Instant::now();
    let numbers = arguments.only.map_or(0..executions, |only| only..only + 1);
    for number in numbers {
        CURRENT.store(number, Ordering::Relaxed);
        execute(&mut Rng::new(arguments.seed, number), number);
    }
    let peak = peak_memory();
    assert!(peak < MOST_MEMORY, "{what}: {peak} bytes of memory");
    let seconds = start.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let rate = (executions as f64 / seconds) as u64;
    println!("test {what} ... ok, {executions} in {seconds:.1} s, {rate}/s, peak {} KiB", peak / 1024);
}

fn name_the_execution_in_a_panic(seed: u64) {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        let number = CURRENT.load(Ordering::Relaxed);
        eprintln!("execution {number}; to repeat it: --seed {seed} --only {number}");
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
