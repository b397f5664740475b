//! The switch: a bridge in a network namespace of its own, one cable per machine.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::unistd::Pid;

use crate::Error;
use crate::Result;
use crate::VIP;
use crate::network::CLIENT_PORT;
use crate::process::{must, pid_of, poll, spawn_for_life, unshare};

/// The port on which a master answers metaloggers.
const METALOGGER_PORT: u16 = 9419;
const QUICK: Duration = Duration::from_secs(20);

/// Holds the bridge; everything in it ends with this value.
#[derive(Debug)]
pub(crate) struct Switch {
    keeper: Child,
    scratch: PathBuf,
}

impl Switch {
    pub(crate) fn start(scratch: &Path) -> Result<Self> {
        let mut command = unshare(&["--net", "sleep", "infinity"]);
        command.stdin(std::process::Stdio::null());
        let keeper = spawn_for_life(command)?;
        let switch = Self { keeper, scratch: scratch.to_owned() };
        let own = std::fs::read_link("/proc/self/ns/net").ok();
        let path = format!("/proc/{}/ns/net", switch.pid());
        let away = poll(QUICK, || {
            std::fs::read_link(&path).ok().filter(|link| Some(link) != own.as_ref() && switch.is_sleeping())
        });
        if away.is_none() {
            let (what, recent) = ("the switch's namespace".to_owned(), String::new());
            return Err(Error::Expired { what, within: QUICK, recent });
        }
        // The bridge's own address is where the lab asks from; the machines' guards never look at it.
        switch.shell(
            "for scope in all default; do
                 if [ -e /proc/sys/net/ipv6/conf/$scope ]; then echo 1 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6; fi
             done
             ip link set lo up
             ip link add br0 type bridge stp_state 0 forward_delay 0 mcast_snooping 0
             ip addr add 172.16.0.1/16 dev br0
             ip link set br0 up",
        )?;
        Ok(switch)
    }

    fn is_sleeping(&self) -> bool {
        let name = std::fs::read_to_string(format!("/proc/{}/comm", self.pid()));
        name.is_ok_and(|name| name.trim() == "sleep")
    }

    /// The process whose network namespace is the switch.
    pub(crate) fn pid(&self) -> Pid {
        pid_of(&self.keeper)
    }

    /// Lays the cable of a machine and sets up its `eth0`.
    pub(crate) fn connect(&self, name: &str, init: Pid, address: Ipv4Addr) -> Result<()> {
        let hardware = hardware_address(address);
        // The machine need not ask where its probe is: it would ask in the name of the virtual address.
        let probe = Self::probe_address(address);
        let probe_hardware = hardware_address(probe);
        self.shell(&format!(
            "ip link del v-{name} 2> /dev/null || :
             ip link add v-{name} type veth peer name eth0 address {hardware} netns {init}
             ip link set v-{name} master br0 up
             nsenter -t {init} -n ip -batch - <<END
link set lo up
addr add {address}/16 brd + dev eth0
link set eth0 up
neigh add {probe} lladdr {probe_hardware} nud permanent dev eth0
END"
        ))
    }

    /// Lays one more cable of a machine, to a bridge that only cables with this name share.
    pub(crate) fn connect_further(&self, name: &str, init: Pid, interface: &str) -> Result<()> {
        self.shell(&format!(
            "ip link show br-{interface} > /dev/null 2>&1 ||
                 ip link add br-{interface} up type bridge stp_state 0 forward_delay 0 mcast_snooping 0
             ip link add v-{name}-{interface} type veth peer name {interface} netns {init}
             ip link set v-{name}-{interface} master br-{interface} up
             nsenter -t {init} -n ip link set {interface} up"
        ))
    }

    /// The address of the client that asks the machine with this address alone.
    pub(crate) fn probe_address(address: Ipv4Addr) -> Ipv4Addr {
        let [.., last] = address.octets();
        Ipv4Addr::new(172, 16, 1, last)
    }

    /// Lays the cable of a machine's probe, whose network is that of this thread of ours: the virtual address leads to the
    /// machine, and no port of the probe answers.
    pub(crate) fn connect_probe(&self, name: &str, thread: Pid, address: Ipv4Addr) -> Result<()> {
        let (machine, probe) = (hardware_address(address), Self::probe_address(address));
        let hardware = hardware_address(probe);
        let network = format!("/proc/{}/task/{thread}/ns/net", std::process::id());
        self.shell(&format!(
            "ip link add p-{name} type veth peer name eth0 address {hardware} netns {network}
             ip link set p-{name} master br0 up
             nsenter --net={network} sh -ec '
                 for scope in all default; do
                     if [ -e /proc/sys/net/ipv6/conf/$scope ]; then echo 1 > /proc/sys/net/ipv6/conf/$scope/disable_ipv6; fi
                 done
                 ip addr add {probe}/16 dev eth0
                 ip link set eth0 up
                 ip neigh add {VIP} lladdr {machine} nud permanent dev eth0
                 nft add table ip quiet
                 nft add chain ip quiet input \"{{ type filter hook input priority 0; policy drop; }}\"
                 nft add rule ip quiet input tcp sport {CLIENT_PORT} accept'"
        ))
    }

    /// The cable of a machine is pulled out or put in: its link goes down or up.
    pub(crate) fn cable(&self, name: &str, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        self.shell(&format!("ip link set v-{name} {state}"))
    }

    /// The path beyond the cable breaks or comes back: the link stays up, nothing passes.
    pub(crate) fn path(&self, name: &str, whole: bool) -> Result<()> {
        let to = if whole { "master br0" } else { "nomaster" };
        self.shell(&format!("ip link set v-{name} {to}"))
    }

    /// Drops what comes from one machine and would go to another.
    pub(crate) fn block(&self, from: &str, to: &str) -> Result<()> {
        self.shell(&format!(
            "nft add table bridge lab
             nft add chain bridge lab forward '{{ type filter hook forward priority 0; }}'
             nft add rule bridge lab forward iifname v-{from} oifname v-{to} drop"
        ))
    }

    /// Drops what a master sends to the metalogger of a machine.
    pub(crate) fn starve(&self, name: &str) -> Result<()> {
        self.shell(&format!(
            "nft add table bridge starve-{name}
             nft add chain bridge starve-{name} forward '{{ type filter hook forward priority 0; }}'
             nft add rule bridge starve-{name} forward oifname v-{name} tcp sport {METALOGGER_PORT} drop"
        ))
    }

    /// Ends [`Switch::starve`].
    pub(crate) fn feed(&self, name: &str) -> Result<()> {
        self.shell(&format!("nft delete table bridge starve-{name} 2> /dev/null || :"))
    }

    /// Parts the ports of the switch into groups that do not hear each other. The first one has the switch's own address.
    pub(crate) fn split(&self, groups: &[Vec<String>]) -> Result<()> {
        let mut script = "nft -f - <<END\ntable bridge split {\n".to_owned();
        let ports =
            |group: &[String]| group.iter().map(|name| format!("v-{name}, p-{name}")).collect::<Vec<_>>().join(", ");
        for (hook, rules) in [
            ("forward", "iifname {P} oifname != {P} drop"),
            ("input", "iifname {P} drop"),
            ("output", "oifname {P} drop"),
        ] {
            let _ = writeln!(script, "chain {hook} {{ type filter hook {hook} priority 0;");
            for group in groups.iter().skip(usize::from(hook != "forward")) {
                let _ = writeln!(script, "{}", rules.replace("{P}", &format!("{{ {} }}", ports(group))));
            }
            script += "}\n";
        }
        self.shell(&(script + "}\nEND"))
    }

    /// Ends [`Switch::split`].
    pub(crate) fn join(&self) -> Result<()> {
        self.shell("nft delete table bridge split 2> /dev/null || :")
    }

    /// All these cables are pulled out or put in at once.
    pub(crate) fn cables<'a>(&self, names: impl Iterator<Item = &'a str>, plugged: bool) -> Result<()> {
        let state = if plugged { "up" } else { "down" };
        let lines = names.fold(String::new(), |lines, name| lines + &format!("link set v-{name} {state}\n"));
        self.shell(&format!("ip -batch - <<END\n{lines}END"))
    }

    /// Drops nothing any more.
    pub(crate) fn unblock(&self) -> Result<()> {
        self.shell("nft delete table bridge lab 2> /dev/null || :")
    }

    /// The cable goes away, with a machine that was powered off.
    pub(crate) fn remove(&self, name: &str) -> Result<()> {
        self.shell(&format!("ip link del v-{name} 2> /dev/null || :"))
    }

    /// Runs a script in the switch, for what the lab has no verb for (nftables for one-way splits).
    pub(crate) fn shell(&self, script: &str) -> Result<()> {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid().to_string(), "-n", "sh", "-ec", script]);
        must(command, &self.scratch, QUICK).map(drop)
    }
}

impl Drop for Switch {
    fn drop(&mut self) {
        let _ = self.keeper.kill();
        let _ = self.keeper.wait();
    }
}

/// The hardware address of the machine that has this IP address: the last two bytes tell which one it is.
pub(crate) fn hardware_address(address: Ipv4Addr) -> String {
    let [_, _, high, low] = address.octets();
    format!("02:00:00:00:{high:02x}:{low:02x}")
}
