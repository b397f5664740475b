//! The operations of a hot standby: a run that stands by, with something in the place of its ucarp, and a metalogger's log that
//! grows while it follows. And what must hold of its master: it serves where a promotion has let it go, or it waits and every
//! run can find it, and nothing else of a master is left.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use lab::trace::Fault;
use lab::{Daemon, Result, SingleMachine, SingleMachines, TracedRun, log_lines};

use crate::test_machine::{Operation, Standby, TestMachine, promotion};

/// What the metalogger writes while it is followed, a piece at a time; the last name in each. The recorded log ends with half
/// of a line.
const PIECES: [(&str, &str); 3] = [
    (",0):791\n797: 1795387286|CREATE(1,h1,2,511,18,0,0,0):792\n", "h1"),
    ("798: 1795387286|CREATE(1,h2,2,511,18,0,0,0):793\n799: 1795", "h2"),
    ("387286|CREATE(1,h3,2,511,18,0,0,0):794\n800: 1795387287|CREATE(1,h4,2,511,18,0,0,0):795\n", "h4"),
];
/// How the recorded log ends.
const LAST_RECORDED: &str = "CREATE(1,g579,2,511,18,0,0";
/// The metalogger's log.
const LOG: &str = "changelog_ml.0.mfs";
/// A run that is not hot, or has not been fed, by then does not get so far: a fault was injected.
const FED_WITHIN: Duration = Duration::from_secs(20);
/// A master that was let go or started listens within this.
const LISTENS_WITHIN: Duration = Duration::from_secs(10);
/// The port of clients.
const PORT: u16 = 9421;

/// The whole log, when all pieces are written.
pub(crate) fn whole_log(recorded: &str) -> String {
    PIECES.iter().fold(recorded.to_owned(), |log, (piece, _)| log + piece)
}

/// Writes what is missing of all pieces: the metalogger goes on, whatever became of the run.
pub(crate) fn complete_log(machine: &SingleMachine) {
    // Set aside by a promotion, or that of a new history: then it was complete.
    let log = fs::read_to_string(machine.data().join(LOG)).unwrap_or_default();
    let Some((_, written)) = log.split_once(LAST_RECORDED) else { return };
    append(machine, &whole_log("")[written.len()..]);
}

fn append(machine: &SingleMachine, piece: &str) {
    let log = OpenOptions::new().append(true).open(machine.data().join(LOG));
    log.and_then(|mut log| log.write_all(piece.as_bytes())).expect("the metalogger's log");
}

/// A process in the place of ucarp, by its id in the machine: a run that stands by stays as long as it lives.
struct Ucarp {
    pid: String,
    start: String,
}

impl Ucarp {
    fn start(machine: &SingleMachine) -> Result<Self> {
        let script = "tail -f /dev/null > /dev/null 2>&1 & echo $! $(cut -d' ' -f22 /proc/$!/stat)";
        let said = machine.must(&["sh", "-c", script])?;
        let (pid, start) = said.trim().split_once(' ').expect("two numbers");
        Ok(Self { pid: pid.to_owned(), start: start.to_owned() })
    }

    fn end(&self, machine: &SingleMachine) {
        // It may have been killed with everything else.
        let _ = machine.run(&["kill", "-KILL", &self.pid]);
    }

    /// The command line of the run that its `vip-down` starts.
    fn demotion(&self) -> [String; 3] {
        let Self { pid, start } = self;
        let options = r#"{"vhid":10,"advbase":1,"advskew":0,"deadratio":3,"vip":"172.16.0.99","interface":"eth0",
            "group":"224.0.0.18","shutdown_script":true,"preempt":false,"neutral":false,"xparam":null,"up_script":null,
            "down_script":null,"password":null}"#;
        let ucarp = format!(r#"{{"pid":{pid},"start":{start},"options":{options}}}"#);
        ["mfs-promote".to_owned(), "--call".to_owned(), call("demotion", &ucarp)]
    }
}

/// A call of a hook.
fn call(kind: &str, ucarp: &str) -> String {
    format!(r#"{{"kind":"{kind}","interface":"eth0","vip":"172.16.0.99","config":null,"ticket":null,"ucarp":{ucarp}}}"#)
}

fn words(line: &[String]) -> Vec<&str> {
    line.iter().map(String::as_str).collect()
}

/// A run stands by and keeps a hot standby that it has fed.
fn keep(machine: &SingleMachine) -> Result<Ucarp> {
    let ucarp = Ucarp::start(machine)?;
    machine.leave_running(&words(&ucarp.demotion()))?;
    let feeder = Feeder { machine, ended: &AtomicBool::new(false) };
    assert!(feeder.waits_until(|| is_hot(machine)), "no hot standby: {}", machine.log());
    assert!(feeder.feed(0), "it is not fed: {}", machine.log());
    Ok(ucarp)
}

/// Runs an operation of a hot standby on a machine whose metalogger runs. Sets `served` if a master served meanwhile that must
/// not.
pub(crate) fn run(
    machine: &SingleMachine,
    operation: Operation,
    fault: Option<(Fault, usize)>,
    served: &AtomicBool,
) -> Result<TracedRun> {
    let ucarp = if operation == Operation::HotStandby { Ucarp::start(machine)? } else { keep(machine)? };
    let (standby, ended) = (ucarp.demotion(), AtomicBool::new(false));
    let feeder = Feeder { machine, ended: &ended };
    let promotes = !operation.only_stands_by();
    machine.address(promotes)?;
    let line = match operation {
        Operation::HotPromotion => vec!["mfs-promote".into(), "--call".into(), call("promotion", "null")],
        Operation::HotPromotionByHand => promotion().into_iter().map(str::to_owned).collect(),
        _ => standby.into(),
    };
    scope(|scope| {
        let watching = scope.spawn(|| !promotes && feeder.sees_a_master());
        let feeding = scope.spawn(|| {
            if promotes {
                // What the run that stood by does not feed any more, and the metalogger has written before it is stopped.
                if feeder.waits_until(|| left(machine).exists()) {
                    PIECES[1..].iter().for_each(|(piece, _)| append(machine, piece));
                }
                return;
            }
            let is_fed =
                operation != Operation::HotStandby || (feeder.waits_until(|| is_hot(machine)) && feeder.feed(0));
            let _all = is_fed && feeder.feed(1) && feeder.feed(2);
            ucarp.end(machine);
        });
        let traced = machine.trace(&words(&line), fault);
        ended.store(true, Ordering::Relaxed);
        feeding.join().expect("it writes the log");
        served.store(watching.join().expect("it only looks"), Ordering::Relaxed);
        traced
    })
}

/// Where a run leaves a hot standby for the next one.
fn left(machine: &SingleMachine) -> PathBuf {
    machine.data().join(log_lines::HOT_LEFT)
}

/// Whether a run says that it keeps a hot standby.
fn is_hot(machine: &SingleMachine) -> bool {
    let report = machine.run_folder().map(|folder| fs::read_to_string(folder.join(log_lines::HOT_REPORT)));
    report.is_ok_and(|report| report.is_ok_and(|report| report.contains("\"hot\"")))
}

/// Writes the log while a run goes on.
struct Feeder<'a> {
    machine: &'a SingleMachine,
    /// Whether the run has ended.
    ended: &'a AtomicBool,
}

impl Feeder<'_> {
    fn waits_until(&self, condition: impl Fn() -> bool) -> bool {
        let end = Instant::now() + FED_WITHIN;
        while !condition() {
            if self.ended.load(Ordering::Relaxed) || Instant::now() > end {
                return false;
            }
            sleep(Duration::from_millis(10));
        }
        true
    }

    /// Looks to the end of the run whether a master serves clients.
    fn sees_a_master(&self) -> bool {
        while !self.ended.load(Ordering::Relaxed) {
            if self.machine.listens(PORT) {
                return true;
            }
            sleep(Duration::from_millis(10));
        }
        false
    }

    /// Writes a piece, and waits until the set of the hot standby has it.
    fn feed(&self, piece: usize) -> bool {
        let (text, last) = PIECES[piece];
        append(self.machine, text);
        let set = self.machine.data().join(log_lines::HOT_LOG);
        let last = format!("(1,{last},");
        self.waits_until(|| fs::read_to_string(&set).is_ok_and(|set| set.contains(&last)))
    }
}

/// Every master waits as one that the next run finds, or it serves.
pub(crate) fn masters_are_known(machine: &SingleMachine) -> std::result::Result<(), String> {
    in_time(|| {
        let hot = machine.data().join(log_lines::HOT_FOLDER);
        let waits = |master: &Daemon| {
            master.variable(log_lines::HOT_MARK).is_some_and(|mark| !mark.is_empty() && hot.join(mark).exists())
        };
        let unknown = masters(machine).into_iter().find(|master| !waits(master));
        let unknown = unknown.filter(|_| !machine.listens(PORT));
        unknown
            .map_or(Ok(()), |one| Err(format!("mfsmaster {} neither serves nor waits as one that is known", one.pid)))
    })
}

/// After a promotion: one master, which serves, and nothing of the hot standby is left.
pub(crate) fn one_master_serves(machine: &SingleMachine) -> std::result::Result<(), String> {
    in_time(|| {
        let masters = masters(machine);
        if masters.len() != 1 || !machine.listens(PORT) {
            return Err(format!("not one master that serves: {masters:?}"));
        }
        let names = fs::read_dir(machine.data()).into_iter().flatten().flatten();
        let left = names.map(|entry| entry.file_name().to_string_lossy().into_owned()).find(|name| is_of_standby(name));
        left.map_or(Ok(()), |left| Err(format!("{left} is left in the data folder")))
    })
}

/// The processes of masters without what they have forked.
fn masters(machine: &SingleMachine) -> Vec<Daemon> {
    let all = machine.processes("mfsmaster");
    all.iter().filter(|one| all.iter().all(|other| other.pid != one.parent)).cloned().collect()
}

/// One that was let go, started or killed just now is waited for.
fn in_time(holds: impl Fn() -> std::result::Result<(), String>) -> std::result::Result<(), String> {
    let end = Instant::now() + LISTENS_WITHIN;
    loop {
        match holds() {
            Err(_) if Instant::now() < end => sleep(Duration::from_millis(20)),
            judged => return judged,
        }
    }
}

/// The names that are in the data folder while a hot standby is started.
fn is_of_standby(name: &str) -> bool {
    name.starts_with(log_lines::HOT_IMAGE) || name.starts_with(log_lines::HOT_GATE)
}

/// What the campaign looks for it finds.
#[test]
fn a_master_that_no_run_knows_is_found_and_one_that_serves_on_a_standby() -> Result<()> {
    let machines = SingleMachines::reserve()?;
    let test = TestMachine::start(&machines, Standby::Hot)?;
    let machine = test.machine();
    machine.reset(&test.standby(), None)?;
    machine.must(&["mfsmetalogger", "start"])?;
    keep(machine)?;
    let judged = || test.only_known_masters(Operation::HotStandby);
    assert_eq!(judged(), Ok(()));

    // Its run is gone, and then what tells every other run that it waits.
    machine.must(&["pkill", "-KILL", "mfs-promote"])?;
    assert_eq!(judged(), Ok(()));
    machine.must(&["sh", "-c", "mv /var/lib/mfs/mfs-promote/hot/waits.* /var/lib/lab/"])?;
    assert!(judged().is_err_and(|why| why.contains("neither serves nor waits")));
    machine.must(&["sh", "-c", "mv /var/lib/lab/waits.* /var/lib/mfs/mfs-promote/hot/"])?;
    assert_eq!(judged(), Ok(()));

    // The end of its feed.
    machine.must(&["sh", "-c", "echo '0: end\n0: end' > /var/lib/mfs/mfs-promote/hot/feed"])?;
    let feeder = Feeder { machine, ended: &AtomicBool::new(false) };
    assert!(feeder.sees_a_master(), "it serves");
    machine.must(&["sh", "-c", "rm /var/lib/mfs/mfs-promote/hot/waits.*"])?;
    assert!(judged().is_err_and(|why| why.contains("counts as serving")));
    one_master_serves(machine).expect("and nothing else is wrong");
    Ok(())
}
