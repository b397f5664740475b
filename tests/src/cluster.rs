//! A running cluster and everything a test can do to it and ask of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::Output;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::Signal;
use regex_lite::Regex;

use crate::build::Builder;
use crate::clock::Moment;
use crate::error::file;
use crate::events::{Event, EventLog, LAB, UP};
use crate::faults::{
    self, CABLE_PULLED, CUT_OFF, FROZEN, FROZEN_GROUP, ISOLATED, JOINED, OURS_KILLED, POWER_OFF, SPLIT, STOPPED,
};
use crate::groups::Groups;
use crate::hooks::Hooks;
use crate::load::Client;
use crate::log_lines::{RUN_FOLDER, SECOND_NAMES};
use crate::machine::{Machine, Role};
use crate::moosefs;
use crate::probe::Reply;
use crate::process::{Daemon, poll};
use crate::promises::{Findings, Overlap, Trace};
use crate::switch::Switch;
use crate::watch::{LISTENS, Watch};
use crate::work::{HostLock, WorkFolder};
use crate::{Error, Result, VIP, locked, network};

/// Commands that the lab itself runs in a machine must end within this.
pub(crate) const COMMAND: Duration = Duration::from_secs(60);
/// What a machine has logged is here within this.
const LAST_LINES: Duration = Duration::from_secs(2);
/// An answer is recent for so long.
const RECENT: Duration = Duration::from_millis(200);
/// How long an INFO question may take.
const ANSWER: Duration = Duration::from_secs(1);

/// The programs of ours.
const OURS: &[&str] = &["vip-up", "vip-down", "mfs-promote", crate::log_lines::SUPERVISOR];

/// How the processes of a machine are stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pause {
    /// SIGSTOP to each of them.
    Signal,
    /// A control group that is frozen.
    Group,
}

/// Who took over, and when the first answer through the virtual address came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Taken {
    /// The machine that answers.
    pub by: String,
    /// Since when.
    pub at: Moment,
}

/// Machines on a switch. All of it ends with this value, and with the process.
#[derive(Debug)]
pub struct Cluster {
    // In the order in which they must end.
    pub(crate) watch: Watch,
    pub(crate) machines: Vec<Arc<Machine>>,
    /// Of machines that are paused.
    pub(crate) groups: Mutex<BTreeMap<String, Groups>>,
    pub(crate) switch: Switch,
    pub(crate) work: WorkFolder,
    #[expect(dead_code, reason = "held, never read")]
    pub(crate) lock: HostLock,
    pub(crate) events: Arc<EventLog>,
    pub(crate) hooks: Hooks,
    pub(crate) ucarp: Vec<String>,
    pub(crate) judged: bool,
    /// An event did not come: the test fails already, and says why.
    pub(crate) failed: AtomicBool,
}

/// The promises are judged when a cluster ends, so that no scenario can forget to: one that broke them fails, however well
/// it ended. Not while it fails for another reason, which is the better one to show.
impl Drop for Cluster {
    fn drop(&mut self) {
        if self.judged {
            let found = self.findings();
            eprintln!("{found}");
            let fails_already = self.failed.load(Ordering::Relaxed) || std::thread::panicking();
            assert!(
                fails_already || found.broken.is_empty(),
                "a promise was broken\n{found}\n{}",
                self.events.recent()
            );
        }
    }
}

impl Cluster {
    /// Begins the description of a cluster.
    pub fn build() -> Builder {
        Builder::new()
    }

    /// The event log: every log line of every machine, and what the lab did and saw.
    pub fn events(&self) -> &EventLog {
        &self.events
    }

    /// The folder on the host that holds logs and disks, until the cluster ends.
    pub fn folder(&self) -> &std::path::Path {
        self.work.path()
    }

    /// A machine by its name.
    pub fn machine(&self, name: &str) -> Result<&Arc<Machine>> {
        let found = self.machines.iter().find(|machine| machine.name == name);
        found.ok_or_else(|| Error::NoSuchMachine(name.to_owned()))
    }

    /// The machines that run ucarp.
    pub fn masters(&self) -> impl Iterator<Item = &Arc<Machine>> {
        self.machines.iter().filter(|machine| matches!(machine.role, Role::Master(_)))
    }

    /// The first client machine, `c1`.
    ///
    /// # Panics
    ///
    /// In a cluster that was built with no client.
    pub fn client(&self) -> Client {
        self.client_called("c1").expect("a client")
    }

    /// A client machine by its name.
    pub fn client_called(&self, name: &str) -> Result<Client> {
        Ok(Client { machine: Arc::clone(self.machine(name)?), events: Arc::clone(&self.events) })
    }

    // Fault injection.

    /// A power cut: the link goes down and everything in the machine ends at once. Its disk stays.
    pub fn power_off(&self, name: &str) -> Result<Moment> {
        let machine = self.machine(name)?;
        machine.init()?;
        let at = self.events.note(name, POWER_OFF);
        self.switch.cable(name, false)?;
        self.events.note(name, CUT_OFF);
        machine.end()?;
        self.switch.remove(name)?;
        Ok(at)
    }

    /// The machine boots from its disk and starts what a boot starts: its metalogger and ucarp, not the master.
    pub fn power_on(&self, name: &str) -> Result<Moment> {
        let machine = self.machine(name)?;
        machine.boot(&self.switch)?;
        match machine.role {
            Role::Master(_) => {
                machine.must(&["mfsmetalogger", "start"], COMMAND)?;
                self.start_ucarp(name)?;
            }
            Role::Chunkserver => drop(machine.must(&["mfschunkserver", "start"], COMMAND)?),
            Role::Client => drop(machine.must(&["mfsmount", moosefs::MOUNT, "-H", "mfsmaster"], COMMAND)?),
        }
        Ok(Moment::now())
    }

    /// The cable is pulled: the machine's link goes down.
    pub fn cut(&self, name: &str) -> Result<Moment> {
        self.machine(name)?;
        self.switch.cable(name, false)?;
        Ok(self.events.note(name, CABLE_PULLED))
    }

    /// The network beyond the cable breaks: the link stays up, nothing passes.
    pub fn isolate(&self, name: &str) -> Result<Moment> {
        self.machine(name)?;
        self.switch.path(name, false)?;
        Ok(self.events.note(name, ISOLATED))
    }

    /// The switch falls apart: the machines of each group hear only each other. Those that are in no group are with the first
    /// one, and so is the client that [`Cluster::answering`] asks for.
    pub fn split(&self, groups: &[&[&str]]) -> Result<Moment> {
        let mut groups: Vec<Vec<String>> =
            groups.iter().map(|group| group.iter().map(ToString::to_string).collect()).collect();
        groups.iter().flatten().try_for_each(|name| self.machine(name).map(drop))?;
        let others = self.machines.iter().map(|machine| &machine.name);
        let others: Vec<String> =
            others.filter(|name| !groups.iter().any(|group| group.contains(name))).cloned().collect();
        if let Some(first) = groups.first_mut() {
            first.extend(others);
        }
        let named: Vec<String> = groups.iter().map(|group| group.join(" ")).collect();
        let at = self.events.note(LAB, &format!("{SPLIT}{}", named.join(" | ")));
        self.switch.split(&groups)?;
        Ok(at)
    }

    /// Ends [`Cluster::split`].
    pub fn join(&self) -> Result<Moment> {
        self.switch.join()?;
        Ok(self.events.note(LAB, JOINED))
    }

    /// The switch loses its power, or gets it back: the links of all machines go down or up at once.
    pub fn power_of_switch(&self, on: bool) -> Result<Moment> {
        let names = || self.machines.iter().map(|machine| &*machine.name);
        let at = Moment::now();
        self.switch.cables(names(), on)?;
        for name in names() {
            self.events.note(name, if on { "lab: network whole again" } else { CABLE_PULLED });
        }
        Ok(at)
    }

    /// Packets from one machine to another are dropped, one way, until [`Cluster::unblock`].
    pub fn block(&self, from: &str, to: &str) -> Result<Moment> {
        self.machine(from)?;
        self.machine(to)?;
        self.switch.block(from, to)?;
        Ok(self.events.note(from, &format!("lab: blocked towards {to}")))
    }

    /// Ends every [`Cluster::block`].
    pub fn unblock(&self) -> Result<Moment> {
        self.switch.unblock()?;
        Ok(self.events.note(LAB, "lab: nothing is blocked any more"))
    }

    /// The master's changes do not reach the metalogger of this machine any more: its copy falls behind, and all else
    /// works, until [`Cluster::feed`].
    pub fn starve(&self, name: &str) -> Result<Moment> {
        self.machine(name)?;
        self.switch.starve(name)?;
        Ok(self.events.note(name, "lab: its metalogger receives nothing"))
    }

    /// Ends [`Cluster::starve`].
    pub fn feed(&self, name: &str) -> Result<Moment> {
        self.machine(name)?;
        self.switch.feed(name)?;
        Ok(self.events.note(name, "lab: its metalogger receives changes again"))
    }

    /// Ends [`Cluster::cut`] and [`Cluster::isolate`].
    pub fn heal(&self, name: &str) -> Result<Moment> {
        self.machine(name)?;
        self.switch.path(name, true)?;
        self.switch.cable(name, true)?;
        Ok(self.events.note(name, "lab: network whole again"))
    }

    /// Every process of the machine stops where it is, and its network with it: a virtual machine that is paused.
    pub fn freeze(&self, name: &str) -> Result<Moment> {
        let at = self.events.note(name, FROZEN);
        self.switch.path(name, false)?;
        self.stop_all(name)?;
        Ok(at)
    }

    fn stop_all(&self, name: &str) -> Result<()> {
        // A process may end, or start another one, between being listed and being stopped.
        self.expect(&format!("every process of {name} to stop"), COMMAND, || {
            let mut running = self.all_but_init(name);
            running.retain(|process| !process.is_stopped());
            for process in &running {
                let _ = process.signal(Signal::SIGSTOP);
            }
            running.is_empty().then_some(())
        })
    }

    /// Ends [`Cluster::freeze`].
    pub fn thaw(&self, name: &str) -> Result<Moment> {
        self.continue_all(name);
        self.switch.path(name, true)?;
        Ok(self.events.note(name, "lab: thawed"))
    }

    fn continue_all(&self, name: &str) {
        // One that is killed while it is stopped is gone as well.
        for process in self.all_but_init(name) {
            let _ = process.signal(Signal::SIGCONT);
        }
    }

    /// Every process of the machine stops where it is. Its kernel goes on: it answers ARP, and acknowledges what arrives.
    pub fn pause(&self, name: &str, how: Pause) -> Result<Moment> {
        match how {
            Pause::Signal => {
                let at = self.events.note(name, STOPPED);
                self.stop_all(name)?;
                Ok(at)
            }
            Pause::Group => {
                let group = Groups::create(self.work.path(), name)?;
                self.expect(&format!("every process of {name} to be in its group"), COMMAND, || {
                    group
                        .take_in(self.all_but_init(name).iter().map(|process| process.pid))
                        .ok()
                        .filter(|new| *new == 0)
                })?;
                let at = self.events.note(name, FROZEN_GROUP);
                group.freeze(true)?;
                locked(&self.groups).insert(name.to_owned(), group);
                Ok(at)
            }
        }
    }

    /// Ends [`Cluster::pause`].
    pub fn resume(&self, name: &str) -> Result<Moment> {
        match locked(&self.groups).remove(name) {
            Some(group) => {
                group.freeze(false)?;
                group.empty()?;
            }
            None => self.continue_all(name),
        }
        Ok(self.events.note(name, "lab: goes on"))
    }

    /// Kills every program of ours on the machine, and `more`, before any of them can see that another one is gone.
    pub fn kill_ours_and(&self, name: &str, more: &[&str]) -> Result<Moment> {
        let at = self.events.note(name, OURS_KILLED);
        let ours = || {
            let mut all = self.all_but_init(name);
            all.retain(|process| OURS.iter().chain(more).any(|one| *one == process.name));
            all
        };
        for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
            for process in ours() {
                let _ = process.signal(signal);
            }
        }
        self.expect(&format!("everything of ours to be gone from {name}"), COMMAND, || {
            ours().is_empty().then_some(())
        })?;
        Ok(at)
    }

    /// All processes but process 1, a shell, and its `sleep`.
    fn all_but_init(&self, name: &str) -> Vec<Daemon> {
        let all = self.machine(name).map(|machine| machine.processes()).unwrap_or_default();
        all.into_iter().filter(|process| !matches!(&*process.name, "bash" | "sleep")).collect()
    }

    /// Lays a further cable, from `interface` of a machine to a bridge of its own in the switch, `br-INTERFACE`. Both ends are up,
    /// and have no address.
    pub fn further_cable(&self, name: &str, interface: &str) -> Result<()> {
        self.switch.connect_further(name, self.machine(name)?.init()?, interface)
    }

    /// Runs a script in the switch's network namespace. The far end of a machine's cable is called `v-NAME`.
    pub fn on_switch(&self, script: &str) -> Result<()> {
        self.switch.shell(script)
    }

    /// Sends a signal to the main process of a program.
    pub fn kill(&self, name: &str, program: &str, signal: Signal) -> Result<Moment> {
        let daemon = self.daemon(name, program)?;
        let at = self.events.note(name, &format!("lab: {signal} to {program}"));
        daemon.signal(signal)?;
        Ok(at)
    }

    /// Sends a signal to the run of a hook that does this kind of work, `promotion` or `demotion`: not to the one before it, which may
    /// be about to end, nor to one that waits to take its place.
    pub fn signal_run(&self, name: &str, kind: &str, signal: Signal) -> Result<Moment> {
        let mut runs = self.machine(name)?.processes();
        runs.retain(|one| one.name == "mfs-promote" && one.is_called_for(kind));
        let Some(run) = Daemon::main_ones(&runs).max_by_key(|one| one.pid) else {
            return Err(Error::NotRunning { machine: name.to_owned(), program: format!("the {kind} of mfs-promote") });
        };
        let at = self.events.note(name, &format!("lab: {signal} to mfs-promote"));
        run.signal(signal)?;
        Ok(at)
    }

    /// When a master may have gone with changes that it had acknowledged and not replicated: see `faults::crashes`.
    pub fn crashes(&self) -> Vec<RangeInclusive<Moment>> {
        faults::crashes(&self.events.since(0))
    }

    // Acts of an administrator.

    /// Other hooks on every machine that may be the master; each takes them over at its next start.
    pub fn change_hooks(&mut self, hooks: Hooks) -> Result<()> {
        hooks.install(self.masters().map(AsRef::as_ref))?;
        self.hooks = hooks;
        Ok(())
    }

    /// Starts ucarp as a boot does: in the background, with a password file and `-z`.
    pub fn start_ucarp(&self, name: &str) -> Result<()> {
        let machine = self.machine(name)?;
        let skew = if let Role::Master(skew) = machine.role { skew } else { 0 };
        let [up, down] = self.hooks.scripts();
        let (address, vip, skew) = (machine.address.to_string(), VIP.to_string(), skew.to_string());
        let mut line =
            vec!["ucarp", "-B", "-i", "eth0", "-s", &address, "-v", "10", "-o", "/etc/mfs/ucarp.pass", "-a", &vip];
        line.extend(["-u", &up, "-d", &down, "-z", "-b", "1", "-r", "3", "-k", &skew]);
        line.extend(self.ucarp.iter().map(String::as_str));
        machine.must(&line, COMMAND).map(drop)
    }

    /// Ends ucarp politely and waits for its end.
    pub fn stop_ucarp(&self, name: &str) -> Result<Moment> {
        let daemon = self.daemon(name, "ucarp")?;
        let at = self.kill(name, "ucarp", Signal::SIGTERM)?;
        let within = Duration::from_secs(30);
        self.expect(&format!("the end of ucarp on {name}"), within, || {
            let now = self.machine(name).ok()?.daemon("ucarp");
            (now != Some(daemon.clone())).then_some(())
        })?;
        Ok(at)
    }

    /// Stops and starts ucarp.
    pub fn restart_ucarp(&self, name: &str) -> Result<()> {
        self.stop_ucarp(name)?;
        self.start_ucarp(name)
    }

    /// Runs a command in a machine, whatever its exit status.
    pub fn run(&self, name: &str, line: &[&str]) -> Result<Output> {
        self.machine(name)?.run(line, COMMAND)
    }

    /// Runs a command in a machine that must succeed, and returns what it printed.
    pub fn must(&self, name: &str, line: &[&str]) -> Result<String> {
        self.machine(name)?.must(line, COMMAND)
    }

    // Questions.

    /// Whether the machine holds the virtual address now.
    pub fn holds_vip(&self, name: &str) -> bool {
        self.machine(name).and_then(|machine| machine.init()).is_ok_and(|init| network::holds(init, VIP))
    }

    /// The machines that hold the virtual address and whose master answers on 9421 now.
    pub fn serving(&self) -> Vec<String> {
        let serves =
            |machine: &&Arc<Machine>| self.holds_vip(&machine.name) && self.master_version(&machine.name).is_ok();
        self.masters().filter(serves).map(|machine| machine.name.clone()).collect()
    }

    /// Whether a master began to listen on this machine after a mark. The watch has seen it, whatever our programs log.
    pub fn started_master_since(&self, mark: usize, name: &str) -> bool {
        let events = self.events.since(mark);
        events.iter().any(|event| event.machine == name && event.text == LISTENS)
    }

    /// The machine that answers through the virtual address, seen from the network, and since when.
    pub fn answering(&self) -> Option<Taken> {
        self.watch.answering().map(|(by, at)| Taken { by, at })
    }

    /// The times in which two machines answered clients.
    pub fn overlaps(&self) -> Vec<Overlap> {
        self.findings().overlaps
    }

    /// Whether the machine answered its own client within the last 200 ms, on its side of the network.
    pub fn answers(&self, name: &str) -> bool {
        self.watch.last_reply(name).is_some_and(|reply| Moment::now() - reply.received < RECENT)
    }

    /// Waits until the machine has answered a question that was sent after this call.
    pub fn wait_for_answer_of(&self, name: &str, within: Duration) -> Result<Reply> {
        let since = Moment::now();
        let fresh = || self.watch.last_reply(name).filter(|reply| reply.sent >= since);
        self.expect(&format!("an answer of {name}"), within, fresh)
    }

    /// How the product has kept its promises so far.
    pub fn findings(&self) -> Findings {
        let judge = || {
            // In this order: a run logs its end before its process is gone.
            let running = Some(self.runs());
            let (events, answers, replies) = (self.events.since(0), self.watch.answers(), self.watch.replies());
            Trace { events, answers, replies, running, end: Some(Moment::now()) }.judge()
        };
        // The last line of a run may still be on its way.
        poll(LAST_LINES, || Some(judge()).filter(|found| found.broken.is_empty())).unwrap_or_else(judge)
    }

    /// The machines and process ids of every mfs-promote, as log lines show them.
    fn runs(&self) -> BTreeSet<(String, String)> {
        let on = |machine: &Arc<Machine>| {
            let runs = machine.processes().into_iter().filter(|process| process.name == "mfs-promote");
            let ids: Vec<String> = runs.filter_map(|process| process.inner_pid()).collect();
            ids.into_iter().map(|id| (machine.name.clone(), id)).collect::<Vec<_>>()
        };
        self.masters().flat_map(on).collect()
    }

    /// The metadata version of the master on this machine, asked from inside.
    pub fn master_version(&self, name: &str) -> Result<u64> {
        network::master_version(self.machine(name)?.init()?, std::net::Ipv4Addr::LOCALHOST, ANSWER)
    }

    /// A daemon's main process, by its id on this host.
    pub fn daemon(&self, name: &str, program: &str) -> Result<Daemon> {
        let found = self.machine(name)?.daemon(program);
        found.ok_or_else(|| Error::NotRunning { machine: name.to_owned(), program: program.to_owned() })
    }

    /// A running mfs-promote with this verb. Others may run at the same time, waiting or monitoring.
    pub fn verb(&self, name: &str, verb: &str) -> Result<Daemon> {
        let all = self.machine(name)?.processes();
        let found = all.into_iter().find(|one| one.name == "mfs-promote" && one.was_told(verb));
        found.ok_or_else(|| Error::NotRunning { machine: name.to_owned(), program: format!("mfs-promote {verb}") })
    }

    /// Sends a signal to a running mfs-promote with this verb.
    pub fn signal_verb(&self, name: &str, verb: &str, signal: Signal) -> Result<Moment> {
        let run = self.verb(name, verb)?;
        let at = self.events.note(name, &format!("lab: {signal} to mfs-promote {verb}"));
        run.signal(signal)?;
        Ok(at)
    }

    /// The master's main process, if it runs there.
    pub fn master_pid(&self, name: &str) -> Option<i32> {
        self.daemon(name, "mfsmaster").ok().map(|daemon| daemon.pid)
    }

    /// The names in a machine's data folder, folders with a slash and their content, sorted. The second names that a standby gives
    /// to change logs are none of their own.
    pub fn files(&self, name: &str) -> Result<Vec<String>> {
        let mut names = Vec::new();
        let mut folders = vec![(self.data(name)?, String::new())];
        while let Some((folder, prefix)) = folders.pop() {
            for entry in fs::read_dir(&folder).map_err(file("list", &folder))?.flatten() {
                let mut name = format!("{prefix}{}", entry.file_name().to_string_lossy());
                if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                    name.push('/');
                    folders.push((entry.path(), name.clone()));
                }
                names.push(name);
            }
        }
        names.retain(|name| !name.starts_with(SECOND_NAMES));
        if !names.iter().any(|name| name.starts_with(RUN_FOLDER) && name != RUN_FOLDER) {
            names.retain(|name| name != RUN_FOLDER);
        }
        names.sort();
        Ok(names)
    }

    /// A machine's data folder as seen from the host, for tests that damage it.
    pub fn data(&self, name: &str) -> Result<PathBuf> {
        self.machine(name)?.data()
    }

    /// The version that this machine's metalogger copy reaches on disk (its log is flushed once a second).
    pub fn copy_reaches(&self, name: &str) -> Result<Option<u64>> {
        Ok(moosefs::copy_reaches(&self.data(name)?))
    }

    /// Whether this machine's copy has all that the serving master had when this was called, within two flushes.
    pub fn metalogger_in_step(&self, name: &str) -> Result<bool> {
        let Some(server) = self.serving().into_iter().next() else {
            return Ok(false);
        };
        let version = self.master_version(&server)?;
        let folder = self.data(name)?;
        let reached = || moosefs::copy_reaches(&folder).filter(|reached| *reached >= version);
        Ok(poll(Duration::from_secs(2), reached).is_some())
    }

    // Waiting for events.

    /// Where the event log ends now, for [`Cluster::wait_for_log_since`].
    pub fn mark(&self) -> usize {
        self.events.mark()
    }

    /// Waits until `condition` gives something; at the deadline the error shows every machine's last log lines.
    pub fn expect<T>(&self, what: &str, within: Duration, condition: impl FnMut() -> Option<T>) -> Result<T> {
        poll(within, condition).ok_or_else(|| self.expired(what, within))
    }

    /// Waits for a log line of a machine that matches a regular expression; earlier lines count.
    pub fn wait_for_log(&self, name: &str, pattern: &str, within: Duration) -> Result<Event> {
        self.wait_for_log_since(0, name, pattern, within)
    }

    /// Waits for a log line after a mark.
    pub fn wait_for_log_since(&self, mark: usize, name: &str, pattern: &str, within: Duration) -> Result<Event> {
        let regex = Regex::new(pattern)?;
        let found = self.events.wait(mark, within, |event| event.machine == name && regex.is_match(&event.text));
        found.ok_or_else(|| self.expired(&format!("{name} to log /{pattern}/"), within))
    }

    /// Waits until a master answers INFO through the virtual address, from any machine but this one.
    pub fn wait_for_serving_other_than(&self, name: &str, within: Duration) -> Result<Taken> {
        self.wait_for_answer(&format!("another machine than {name} to serve"), within, |by| by != name)
    }

    /// Waits until this machine answers INFO through the virtual address.
    pub fn wait_for_serving(&self, name: &str, within: Duration) -> Result<Taken> {
        self.wait_for_answer(&format!("{name} to serve"), within, |by| by == name)
    }

    fn wait_for_answer(&self, what: &str, within: Duration, wanted: impl Fn(&str) -> bool) -> Result<Taken> {
        let asked = || self.watch.answering().filter(|(by, _)| wanted(by)).map(|(by, at)| Taken { by, at });
        self.expect(what, within, asked)
    }

    /// Waits until this machine's copy has all that the serving master had when it was first asked.
    pub fn wait_for_metalogger_in_step(&self, name: &str, within: Duration) -> Result<()> {
        let folder = self.data(name)?;
        let mut wanted = None;
        self.expect(&format!("the metalogger on {name} to be in step"), within, || {
            if wanted.is_none() {
                wanted = self.serving().first().and_then(|server| self.master_version(server).ok());
            }
            moosefs::copy_reaches(&folder).zip(wanted).filter(|(reached, wanted)| reached >= wanted).map(drop)
        })
    }

    fn expired(&self, what: &str, within: Duration) -> Error {
        self.failed.store(true, Ordering::Relaxed);
        Error::Expired { what: what.to_owned(), within, recent: self.events.recent() }
    }

    // How it comes up.

    /// The first master and its address, then everything that connects to it, then the standbys.
    pub(crate) fn bring_up(&self, within: Duration, copies: bool) -> Result<()> {
        for machine in &self.machines {
            machine.boot(&self.switch)?;
        }
        let first = &self.machines[0];
        first.must(&["mfsmaster", "start"], COMMAND)?;
        self.hooks.hold_back(first)?;
        self.start_ucarp(&first.name)?;
        let served = || (self.holds_vip(&first.name) && self.hooks.were_called(first)).then_some(());
        self.expect("the first machine to hold the address", within, served)?;
        self.hooks.arm(first)?;
        for machine in &self.machines {
            match machine.role {
                // On the first machine the hooks may be quicker.
                Role::Master(_) => machine
                    .must(&["mfsmetalogger", "start"], COMMAND)
                    .map(drop)
                    .or_else(|e| machine.daemon("mfsmetalogger").map(drop).ok_or(e))?,
                Role::Chunkserver => drop(machine.must(&["mfschunkserver", "start"], COMMAND)?),
                Role::Client => drop(machine.must(&["mfsmount", moosefs::MOUNT, "-H", "mfsmaster"], COMMAND)?),
            }
        }
        for machine in self.masters().skip(1) {
            self.start_ucarp(&machine.name)?;
        }
        self.wait_until_up(within, copies)?;
        self.events.note(LAB, UP);
        Ok(())
    }

    fn wait_until_up(&self, within: Duration, copies: bool) -> Result<()> {
        let first = &self.machines[0].name;
        self.wait_for_serving(first, within)?;
        for machine in &self.machines {
            match machine.role {
                Role::Master(_) if copies => self.wait_for_metalogger_in_step(&machine.name, within)?,
                Role::Chunkserver => {
                    // As 3.0 says it, and as 4 does.
                    let pattern =
                        format!("chunkserver register end.*{0}|chunkserver {0}.* register end", machine.address);
                    self.wait_for_log(first, &pattern, within)?;
                }
                Role::Master(_) | Role::Client => {}
            }
        }
        Ok(())
    }
}
