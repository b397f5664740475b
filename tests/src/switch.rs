//! The switch: a bridge in a network namespace of its own, one cable per machine.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use nix::unistd::Pid;

use crate::Error;
use crate::Result;
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
        self.shell(&format!(
            "ip link del v-{name} 2> /dev/null || :
             ip link add v-{name} type veth peer name eth0 address {hardware} netns {init}
             ip link set v-{name} master br0 up
             nsenter -t {init} -n ip -batch - <<END
link set lo up
addr add {address}/16 brd + dev eth0
link set eth0 up
END"
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
