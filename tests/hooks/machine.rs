//! A machine for one hook: a test's own network and its own `/run` and `/etc/mfs`, the hook beside a recorder in place
//! of `mfs-promote`, and real ucarp.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use lab::hooks::built_programs;
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// The address that moves.
pub(crate) const VIP: Ipv4Addr = Ipv4Addr::new(172, 16, 0, 99);

/// Everything a test needs; all of it is gone with the test.
pub(crate) struct Machine {
    folder: tempfile::TempDir,
    hook: PathBuf,
}

impl Machine {
    /// A machine with `eth0` 172.16.0.11/16, and `hook`, whose `mfs-promote` writes down how it was started and goes
    /// on running.
    ///
    /// The calling thread is moved into new namespaces, so each test needs its own (the test harness sees to that).
    pub(crate) fn new(hook: &str) -> Self {
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).expect("these tests run as root");
        run("mount --make-rprivate /");
        for private in ["/run", "/etc/mfs"] {
            run(&format!("mount -t tmpfs none {private}"));
        }
        for setting in [
            "link add eth0 type veth peer name far",
            "addr add 172.16.0.11/16 dev eth0",
            "link set eth0 up",
            "link set far up",
        ] {
            run(&format!("ip {setting}"));
        }
        let folder = tempfile::tempdir().unwrap();
        let copy = folder.path().join("hook");
        install(&built_programs().unwrap().join(hook), &copy);
        let machine = Self { folder, hook: copy };
        let files = machine.path("");
        machine.put_promote(&format!(
            "#!/bin/sh\ncd_was=$(readlink /proc/$$/cwd)\ncd {files} || exit\nls /proc/self/fd > fds\necho $cd_was > cwd\n\
             env | cut -d= -f1 | grep -v -e PWD -e _ | sort > env\necho $$ >> pids\n\
             printf '%s\\n' \"$@\" > args.new\nmv args.new args\nexec sleep 60\n",
            files = files.display()
        ));
        machine
    }

    /// A file of this machine's.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Puts another program in the place of `mfs-promote`.
    pub(crate) fn put_promote(&self, text: &str) {
        let source = self.path("mfs-promote.new");
        std::fs::write(&source, text).unwrap();
        install(&source, &self.path("mfs-promote"));
    }

    /// Puts something there that cannot be started.
    pub(crate) fn break_promote(&self) {
        self.put_promote("\0not a program");
    }

    /// Runs the hook by hand.
    pub(crate) fn hook(&self, arguments: &[&str]) -> Output {
        Command::new(&self.hook).args(arguments).stdin(Stdio::null()).output().unwrap()
    }

    /// Runs the hook with descriptors open that it has no use for.
    pub(crate) fn hook_with_open_files(&self) -> Output {
        let script = format!("exec 7</etc/passwd 9</etc/hosts; exec {} eth0 {VIP}", self.hook.display());
        Command::new("/bin/sh").args(["-c", &script]).output().unwrap()
    }

    /// Starts a real ucarp that runs the hook as `option` (`-u` or `-d`).
    pub(crate) fn ucarp(&self, option: &str, more: &[&str]) -> Running {
        let mut command = Command::new("/usr/sbin/ucarp");
        command.args(["-i", "eth0", "-s", "172.16.0.11", "-v", "10", "-p", "secret", "-a", "172.16.0.99", "-r", "1"]);
        command.arg(option).arg(&self.hook).args(more);
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// The arguments that `mfs-promote` was started with; waits for it. Each run's are given once.
    pub(crate) fn promote_arguments(&self) -> Vec<String> {
        until("mfs-promote was started", || self.path("args").exists());
        let arguments = self.read("args").lines().map(str::to_owned).collect();
        // The next one is another run's.
        std::fs::remove_file(self.path("args")).unwrap();
        arguments
    }

    /// The text of one of the recorder's files.
    pub(crate) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    /// Whether the recorder that runs in place of `mfs-promote` is still there.
    pub(crate) fn promote_runs(&self) -> bool {
        let pids = self.read("pids");
        Path::new("/proc").join(pids.lines().next_back().unwrap()).exists()
    }

    /// The call that `mfs-promote` was started with; waits for it.
    pub(crate) fn call(&self) -> serde_json::Value {
        let arguments = self.promote_arguments();
        let [word] = arguments.as_slice() else { panic!("one word: {arguments:?}") };
        serde_json::from_str(word.strip_prefix("--call=").expect("a call")).unwrap()
    }

    /// The prefixes that the VIP has on `eth0`.
    #[expect(clippy::unused_self, reason = "the machine is the network namespace of this thread")]
    pub(crate) fn vip_prefixes(&self) -> Vec<u64> {
        let output = Command::new("ip").args(["-json", "addr", "show", "dev", "eth0"]).output().unwrap();
        let links: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        let held = links[0]["addr_info"].as_array().into_iter().flatten();
        held.filter(|held| held["local"] == VIP.to_string()).filter_map(|held| held["prefixlen"].as_u64()).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pids = std::fs::read_to_string(self.path("pids")).unwrap_or_default();
        for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
            // The recorder has become a `sleep` by now. Gone already is as good.
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// Makes `to` a program with what is in `from`. By another process: a file that this one has open for writing, however
/// briefly, may be inherited by another test's child at that moment, and cannot be run then ("text file busy").
fn install(from: &Path, to: &Path) {
    run(&format!("install -m 755 {} {}", from.display(), to.display()));
}

/// A child that is ended with the test.
pub(crate) struct Running(pub(crate) Child);

impl Running {
    /// Whether it ends within half a minute.
    pub(crate) fn ends(&mut self) -> bool {
        let end = Instant::now() + Duration::from_secs(30);
        while Instant::now() < end {
            if self.0.try_wait().unwrap().is_some() {
                return true;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        false
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Waits until `holds` is true; fails after half a minute.
pub(crate) fn until(what: &str, holds: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < end, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command that must succeed.
pub(crate) fn run(command: &str) {
    let mut words = command.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status().unwrap();
    assert!(status.success(), "{command}");
}

/// What a finished hook wrote to standard error.
pub(crate) fn messages(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// The newest request for a promotion or a demotion.
pub(crate) fn newest_ticket() -> String {
    std::fs::read_to_string("/run/moosefs-ucarp/ticket").unwrap()
}

/// The ticket of a call, as it lies in the folder of the lock.
pub(crate) fn ticket_of(call: &serde_json::Value) -> String {
    let ticket = &call["ticket"];
    format!("{}-{}-{}", ticket["kind"].as_str().unwrap_or_default(), ticket["issued"], ticket["pid"])
}
