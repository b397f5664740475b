//! What the lab sees of a machine's network from outside: no process inside it is needed.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::unistd::Pid;

use crate::Error;
use crate::Result;
use crate::error::{file, system};
use crate::moosefs;

/// The port on which a master answers clients.
pub(crate) const CLIENT_PORT: u16 = 9421;

/// Moves the calling thread into the network namespace of a process; for threads that do nothing else.
pub(crate) fn enter(pid: Pid) -> Result<()> {
    let path = format!("/proc/{pid}/ns/net");
    let namespace = File::open(&path).map_err(file("open", &path))?;
    setns(&namespace, CloneFlags::CLONE_NEWNET).map_err(system(format!("enter {path}")))
}

/// Does something inside the network namespace of a process.
pub(crate) fn inside<T: Send>(pid: Pid, work: impl FnOnce() -> T + Send) -> Result<T> {
    thread::scope(|scope| {
        let worker = scope.spawn(|| enter(pid).map(|()| work()));
        worker.join().unwrap_or_else(|_| {
            let source = std::io::Error::other("the thread panicked");
            Err(Error::System { what: format!("work in the network of {pid}"), source })
        })
    })
}

/// The metadata version of the master behind `address`, asked from inside the network namespace of a process.
pub(crate) fn master_version(from: Pid, address: Ipv4Addr, within: Duration) -> Result<u64> {
    inside(from, || moosefs::info(client_port(address), within, within))?
        .map_err(|source| Error::System { what: format!("ask the master at {address}"), source })
}

/// Whether a local address of the machine with this process 1 is `address`.
pub(crate) fn holds(init: Pid, address: Ipv4Addr) -> bool {
    let leaf = format!("|-- {address}");
    let table = fs::read_to_string(format!("/proc/{init}/net/fib_trie")).unwrap_or_default();
    let lines: Vec<&str> = table.lines().map(str::trim).collect();
    lines.windows(2).any(|pair| pair[0] == leaf && pair[1] == "/32 host LOCAL")
}

/// Whether something listens on the clients' port of the machine with this process 1.
pub(crate) fn listens(init: Pid) -> bool {
    let port = format!(":{CLIENT_PORT:04X}");
    let table = fs::read_to_string(format!("/proc/{init}/net/tcp")).unwrap_or_default();
    table.lines().any(|line| {
        let mut fields = line.split_whitespace().skip(1);
        fields.next().is_some_and(|local| local.ends_with(&port)) && fields.nth(1) == Some("0A")
    })
}

/// The hardware address behind `address` in the neighbour table of the calling thread's namespace.
pub(crate) fn neighbour(address: Ipv4Addr) -> Option<String> {
    let table = fs::read_to_string("/proc/thread-self/net/arp").ok()?;
    let wanted = address.to_string();
    table.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields.first() == Some(&wanted.as_str())).then(|| fields.get(3).map(ToString::to_string))?
    })
}

/// The clients' port at an address.
pub(crate) fn client_port(address: Ipv4Addr) -> SocketAddr {
    SocketAddr::from((address, CLIENT_PORT))
}
