//! A failover to watch: a cluster on this machine, a client that keeps writing, and the master loses its power.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use lab::timeline::{Mark, Timeline};
use lab::{Cluster, Hooks, Moment, Workload};

/// Shows a failover: three masters' machines, a chunkserver and a client that keeps writing, all on this machine.
#[derive(Parser)]
struct Args {
    /// Use the shell hooks of this folder instead of our programs
    #[arg(long, value_name = "DIR")]
    shell_hooks: Option<PathBuf>,
    /// Where the picture goes
    #[arg(long, value_name = "FILE", default_value = "failover.svg")]
    svg: PathBuf,
    /// Give up if the client is not served again after so many seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 180)]
    patience: u64,
}

/// Ordinary life before the power cut, and after the client works again.
const ORDINARY: Duration = Duration::from_secs(3);

/// By now every chunkserver is back: a write that still waits was cut in two by the power cut.
const CHUNKS_BACK: Duration = Duration::from_secs(15);

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool, Box<dyn std::error::Error>> {
    let hooks = args.shell_hooks.clone().map_or_else(Hooks::ours, |folder| Ok(Hooks::Shell { folder }))?;
    println!("starting three masters' machines, a chunkserver and a client ...");
    let cluster = Cluster::build().unjudged().masters(3).hooks(hooks).start()?;
    let load = cluster.client().keep_writing()?;
    println!("m1 serves, m2 and m3 stand by, the client keeps writing\n");
    let mut screen =
        Screen { cluster: &cluster, load: &load, zero: Moment::now(), shown: cluster.mark(), counted: [0; 2] };
    screen.watch_until(ORDINARY, |_, since| since >= ORDINARY)?;

    screen.zero = cluster.power_off("m1")?;
    let mut back = None;
    let served_again = screen.watch_until(Duration::from_secs(args.patience), |works, since| {
        if works {
            back.get_or_insert(since);
        }
        back.is_some_and(|at| since >= at + ORDINARY)
    })?;

    let story = Timeline::collect(&cluster, &load, screen.zero)?;
    fs::write(&args.svg, story.svg()?)?;
    let (longest, all) = (load.outage(screen.zero)?, load.time_without_service(screen.zero)?);
    println!("\nwithout an acknowledgement  longest    in all");
    for (name, longest, all) in
        [("metadata operations", longest.metadata, all.metadata), ("writes", longest.writes, all.writes)]
    {
        println!("  {name:24} {:6.1} s  {:6.1} s", longest.as_secs_f64(), all.as_secs_f64());
    }
    println!("picture: {}", args.svg.display());
    if !served_again {
        println!("\nno machine served the client again within {} s", args.patience);
        return Ok(false);
    }
    let verdict = load.verify(&cluster.crashes())?;
    println!(
        "acknowledged {}, of these lost {}, failed {}",
        verdict.acknowledged,
        verdict.lost.len(),
        verdict.failed.len()
    );
    for one in &verdict.cut_off {
        println!("cut in two by the power cut, as MooseFS acknowledges before it replicates: {one}");
    }
    Ok(verdict.lost.is_empty())
}

/// Prints the story while it happens.
struct Screen<'a> {
    cluster: &'a Cluster,
    load: &'a Workload,
    zero: Moment,
    shown: usize,
    counted: [usize; 2],
}

impl Screen<'_> {
    /// Prints marks as they come and the client's rate every second, until `done` (which gets whether another machine
    /// serves both loops of the client, and the time) or the deadline. Tells which it was.
    fn watch_until(
        &mut self,
        within: Duration,
        mut done: impl FnMut(bool, Duration) -> bool,
    ) -> Result<bool, Box<dyn std::error::Error>> {
        let begin = Instant::now();
        let mut next_count = begin;
        while begin.elapsed() <= within {
            self.show_marks();
            if Instant::now() >= next_count {
                self.show_rate()?;
                next_count += Duration::from_secs(1);
            }
            let works = self.works()?;
            if done(works, begin.elapsed()) {
                return Ok(true);
            }
            thread::sleep(Duration::from_millis(100));
        }
        Ok(false)
    }

    fn works(&self) -> Result<bool, Box<dyn std::error::Error>> {
        let Some(taken) = self.cluster.answering().filter(|taken| taken.by != "m1") else {
            return Ok(false);
        };
        Ok(self.load.works_since(taken.at)?)
    }

    fn show_marks(&mut self) {
        let events = self.cluster.events().since(self.shown);
        self.shown += events.len();
        for mark in events.iter().filter_map(Mark::of) {
            println!("{}", mark.line(self.zero));
        }
    }

    fn show_rate(&mut self) -> Result<(), Box<dyn std::error::Error>> {
        let now = self.load.lines()?.map(|log| log.iter().filter(|line| line.errno.is_none()).count());
        let [metadata, writes] = [now[0] - self.counted[0], now[1] - self.counted[1]];
        self.counted = now;
        let at = Moment::now().seconds_since(self.zero);
        let locked = metadata > 0 && writes == 0 && at > CHUNKS_BACK.as_secs_f64();
        let why = if locked { " (the one cut in two waits for MooseFS's lock on its chunk, up to 130 s)" } else { "" };
        println!("{at:+6.1} s  c1   {metadata:4} metadata operations, {writes:4} writes in the last second{why}");
        Ok(())
    }
}
