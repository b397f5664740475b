//! The client machine's load as the test sees it: started, measured, and checked at the end.

use std::fs;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::Error;
use crate::Result;
use crate::clock::Moment;
use crate::error::{file, system};
use crate::events::EventLog;
use crate::locked;
use crate::machine::Machine;
use crate::moosefs::{CHECK, MOUNT};
use crate::oplog::{Line, METADATA_LOG, Op, WRITES_LOG, parse_log};
use crate::process;

/// Operations per second of each of the two loops.
const RATE: u32 = 200;
/// Where the client's log is in the machine; on its disk, so that the host can read it.
const LOGS: &str = "/var/lib/lab";
/// A gap that a person would notice.
const NOTICEABLE: Duration = Duration::from_millis(500);
/// MooseFS acknowledges an operation before it sends the change to the metaloggers: what was acknowledged this shortly
/// before the master died may exist nowhere else. No failover can bring it back, so it is listed separately.
/// Milliseconds at most where the master has a processor to itself; here it shares two with everything else.
pub(crate) const LOSS_WINDOW: Duration = Duration::from_millis(100);
/// A write that a crash cut in two, after the master had logged `WRITE` and before the client knew, finds its chunk
/// locked by itself. MooseFS forgets such a lock after 120 s, and mfsmount's next try comes up to 10 s later.
pub const LAST_RETRY: Duration = Duration::from_secs(180);
/// How long the final check may take.
const CHECK_TIME: Duration = Duration::from_secs(300);

/// The client machine of a cluster.
#[derive(Debug)]
pub struct Client {
    pub(crate) machine: Arc<Machine>,
    pub(crate) events: Arc<EventLog>,
}

/// The longest times that a client waited for an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outage {
    /// Of metadata operations.
    pub metadata: Duration,
    /// Of writes.
    pub writes: Duration,
}

/// What the final check found.
#[derive(Clone, Debug)]
pub struct Verdict {
    /// Operations that the file system acknowledged.
    pub acknowledged: usize,
    /// Operations that returned an error: not acknowledged.
    pub failed: Vec<Line>,
    /// Acknowledged names that are missing and contents that are wrong.
    pub lost: Vec<Lost>,
    /// Of either kind, but cut in two by a crash of the master, or a consequence of that: in words.
    pub cut_off: Vec<String>,
}

/// Something acknowledged that is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// The name that it was about.
    pub name: String,
    /// When it was asked for.
    pub started: Moment,
    /// When it was acknowledged.
    pub acknowledged: Moment,
    /// What is missing or wrong.
    pub what: String,
}

impl Client {
    /// How many copies a new file has. A chunkserver that has just registered has looked through none of its folders, and no new
    /// chunk comes to it before it has.
    pub fn copies_of_a_new_file(&self) -> Result<usize> {
        const TRY: &str = "echo new > \"$0\" && mfsfileinfo \"$0\" && rm \"$0\"";
        let said = self.machine.must(&["sh", "-c", TRY, &format!("{MOUNT}/new")], Duration::from_secs(60))?;
        Ok(said.lines().filter(|line| line.trim_start().starts_with("copy ")).count())
    }

    /// Starts the two loops at their usual pace and waits until both were acknowledged.
    pub fn keep_writing(&self) -> Result<Workload> {
        self.keep_writing_at(RATE)
    }

    /// Starts the two loops at this many operations per second each.
    pub fn keep_writing_at(&self, rate: u32) -> Result<Workload> {
        self.keep_writing_in("", rate)
    }

    /// The same in a folder of its own: several loads keep out of each other's way.
    pub fn keep_writing_in(&self, folder: &str, rate: u32) -> Result<Workload> {
        let below = |mount: &str| format!("{mount}/{folder}").trim_end_matches('/').to_owned();
        let (mount, inside) = (below(MOUNT), below(LOGS));
        self.machine.must(&["mkdir", "-p", &mount, &inside], Duration::from_secs(60))?;
        let logs = self.machine.disk(&inside);
        for log in [METADATA_LOG, WRITES_LOG] {
            let path = logs.join(log);
            fs::write(&path, "").map_err(file("empty", path))?;
        }
        let mut command = self.machine.command(&["workload", "run", &mount, &inside, &rate.to_string()])?;
        let console = fs::File::create(logs.join("console")).map_err(file("create", logs.join("console")))?;
        let output = console.try_clone().map_err(file("share", logs.join("console")))?;
        command.stdin(Stdio::piped()).stdout(output).stderr(console);
        let child = process::spawn_for_life(command)?;
        let (machine, events) = (Arc::clone(&self.machine), Arc::clone(&self.events));
        let load = Workload { child: Mutex::new(Some(child)), machine, events, logs, inside, check: below(CHECK) };
        load.wait_for_progress(Duration::from_secs(30))?;
        Ok(load)
    }
}

/// A running load. Ends with the value, or with the machine.
#[derive(Debug)]
pub struct Workload {
    child: Mutex<Option<Child>>,
    machine: Arc<Machine>,
    events: Arc<EventLog>,
    logs: PathBuf,
    /// Where its logs are for the machine.
    inside: String,
    /// Where the final check looks.
    check: String,
}

impl Workload {
    /// The operations so far that returned an error.
    pub fn errors(&self) -> Result<Vec<Line>> {
        Ok(self.lines()?.concat().into_iter().filter(|line| line.errno.is_some()).collect())
    }

    /// The log lines so far, of metadata operations and of writes.
    pub fn lines(&self) -> Result<[Vec<Line>; 2]> {
        let read = |name| {
            let path = self.logs.join(name);
            fs::read_to_string(&path).map_err(file("read", path)).and_then(|text| parse_log(&text))
        };
        Ok([read(METADATA_LOG)?, read(WRITES_LOG)?])
    }

    /// Whether a metadata operation and a write were acknowledged that began after `since`.
    pub fn works_since(&self, since: Moment) -> Result<bool> {
        let fresh = |line: &&Line| line.errno.is_none() && line.start >= since;
        let [metadata, writes] = self.lines()?;
        let written = |line: &Line| matches!(line.op, Op::Write(_));
        Ok(metadata.iter().rev().any(|line| fresh(&line)) && writes.iter().rev().filter(fresh).any(written))
    }

    /// Waits until a metadata operation and a write are acknowledged that began after this call.
    pub fn wait_for_progress(&self, within: Duration) -> Result<()> {
        let since = Moment::now();
        let done = process::poll(within, || self.works_since(since).is_ok_and(|works| works).then_some(()));
        done.ok_or_else(|| Error::Expired {
            what: format!(
                "acknowledgements of both loops of the client (of {since:?} and later; the last ones: {:?}; {})",
                self.lines().map(|loops| loops.map(|lines| lines.last().cloned())),
                self.console()
            ),
            within,
            recent: self.events.recent(),
        })
    }

    fn console(&self) -> String {
        fs::read_to_string(self.logs.join("console")).unwrap_or_default()
    }

    /// The longest gap between acknowledgements that ends after `since`, up to now if none came any more.
    pub fn outage(&self, since: Moment) -> Result<Outage> {
        let longest = |lines: Vec<Line>| gaps(&lines, since, Moment::now()).max().unwrap_or_default();
        let [metadata, writes] = self.lines()?.map(longest);
        Ok(Outage { metadata, writes })
    }

    /// All the time that was spent in gaps of more than half a second which end after `since`. More than the longest gap
    /// where the client was served again and then waited once more, as for its chunkservers.
    pub fn time_without_service(&self, since: Moment) -> Result<Outage> {
        let total = |lines: Vec<Line>| gaps(&lines, since, Moment::now()).filter(|gap| *gap > NOTICEABLE).sum();
        let [metadata, writes] = self.lines()?.map(total);
        Ok(Outage { metadata, writes })
    }

    /// Stops the loops: each ends after the operation it is in.
    pub fn stop(&self) -> Result<()> {
        let Some(mut child) = locked(&self.child).take() else {
            return Ok(());
        };
        drop(child.stdin.take());
        let ended = process::wait(&mut child, LAST_RETRY).map_err(system("wait for the client's load"))?;
        match ended {
            Some(status) if status.success() => Ok(()),
            Some(status) => Err(Error::Command {
                command: "workload run".to_owned(),
                outcome: status.to_string(),
                output: self.console(),
                recent: self.events.recent(),
            }),
            None => {
                let _ = nix::sys::signal::killpg(process::pid_of(&child), nix::sys::signal::Signal::SIGKILL);
                let what = "the client's last operation to return".to_owned();
                Err(Error::Expired { what, within: LAST_RETRY, recent: self.events.recent() })
            }
        }
    }

    /// Stops the load, mounts the file system once more with empty caches, and looks for everything acknowledged.
    /// What was cut in two by the crash of a master, at the moments of `crashes`, is listed separately. A crash begins when the
    /// copy that is promoted after it received its last change.
    pub fn verify(&self, crashes: &[RangeInclusive<Moment>]) -> Result<Verdict> {
        self.stop()?;
        let mount = ["mfsmount", CHECK, "-H", "mfsmaster"];
        self.machine.must(&mount, Duration::from_secs(60))?;
        let report = self.machine.must(&["workload", "check", &self.check, &self.inside], CHECK_TIME);
        self.machine.must(&["umount", "-l", CHECK], Duration::from_secs(10))?;
        let report = report?;
        let lines = self.lines()?.concat();
        let acknowledged = lines.iter().filter(|line| line.errno.is_none()).count();
        let mut verdict = Verdict { acknowledged, failed: Vec::new(), lost: Vec::new(), cut_off: Vec::new() };
        let mut gone = Vec::new();
        for lost in report.lines().filter_map(lost_line) {
            match crashes.iter().find(|crash| lost.within(crash)) {
                Some(crash) => {
                    verdict.cut_off.push(format!(
                        "{} (acknowledged {:+.1} ms from the crash, not in the copy that was promoted)",
                        lost.what,
                        lost.acknowledged.seconds_since(*crash.end()) * 1e3
                    ));
                    gone.push(lost.name);
                }
                None => verdict.lost.push(lost),
            }
        }
        for line in lines.into_iter().filter(|line| line.errno.is_some()) {
            let builds_on = |gone: &&String| Path::new(line.op.name()).starts_with(gone);
            if crashes.iter().any(|crash| line.start - *crash.end() < LOSS_WINDOW && *crash.start() <= line.end) {
                verdict.cut_off.push(format!("{line} (in flight at the crash, not acknowledged)"));
            } else if let Some(gone) = gone.iter().find(builds_on) {
                verdict.cut_off.push(format!("{line} (refused, since {gone} is gone)"));
            } else {
                verdict.failed.push(line);
            }
        }
        Ok(verdict)
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // The loops end by themselves when their standard input does; whatever is stuck ends with the machine.
        if let Some(mut child) = locked(&self.child).take() {
            drop(child.stdin.take());
            let _ = process::wait(&mut child, Duration::from_millis(500));
        }
    }
}

impl Lost {
    /// Whether it was acknowledged so close to a crash that only the lost master may have known it, or depends on what was lost then.
    fn within(&self, crash: &RangeInclusive<Moment>) -> bool {
        let around = *crash.start() - self.acknowledged < LOSS_WINDOW && self.acknowledged - *crash.end() < LOSS_WINDOW;
        around || crash.contains(&self.started)
    }
}

/// What the check prints: `lost START END NAME WHAT`.
fn lost_line(line: &str) -> Option<Lost> {
    let mut words = line.strip_prefix("lost ")?.splitn(4, ' ');
    let mut moment = || words.next()?.parse().ok().map(Moment);
    let (started, acknowledged) = (moment()?, moment()?);
    Some(Lost { name: words.next()?.to_owned(), started, acknowledged, what: words.next()?.to_owned() })
}

/// The times between acknowledgements, those that end after `since`, and the one that lasts until now.
fn gaps(lines: &[Line], since: Moment, now: Moment) -> impl Iterator<Item = Duration> {
    let ends = lines.iter().filter(|line| line.errno.is_none()).map(|line| line.end);
    let ends: Vec<Moment> = ends.chain([now]).collect();
    let pairs = ends.windows(2).map(|pair| (pair[0], pair[1])).collect::<Vec<_>>();
    pairs.into_iter().filter(move |(_, to)| *to >= since).map(|(from, to)| to - from)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oplog::Op;

    #[test]
    fn gap_counts_from_the_last_answer_before_the_event_and_to_now() {
        let line = |end: u64| Line { start: Moment(end), end: Moment(end), op: Op::Write("w".into()), errno: None };
        let lines = [line(10), line(100), line(110), line(170), line(180)];
        let longest = |since, now| gaps(&lines, Moment(since), Moment(now)).max();
        assert_eq!(longest(120, 190), Some(Duration::from_nanos(60)));
        assert_eq!(longest(200, 300), Some(Duration::from_nanos(120)));
    }
}
