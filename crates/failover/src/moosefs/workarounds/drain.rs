//! Without this, a busy master loses a change that it acknowledged in about one of twenty failovers by vip-down.
//!
//! A master sends the answer to its client, and in the same pass of its main loop the change to the metaloggers. If the
//! virtual IP is removed between the two, both connections are dead at once: the client has its answer, and no other
//! machine has the change.
//!
//! So first the [lease](crate::sys::nft) is closed, which stops all segments to clients: no client learns of a change from
//! here on. Then the master is asked something; its answer shows that the pass that may have been running is over, and at
//! which version it was. Then the kernels of the metaloggers have a moment to acknowledge all that the master has sent to
//! them. Only then the address is removed. All of it takes some 30 ms. Where a step is impossible, the address is removed
//! without it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;

use crate::metadata::Version;
use crate::moosefs;
use crate::sys::address::{self, Removed};
use crate::sys::nft::Lease;
use crate::sys::process;
use crate::sys::tcp;
use crate::sys::text::human;
use crate::timing;
use crate::vip::VirtualIp;

/// How the address was left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Left {
    /// Whether it was here.
    pub(crate) removed: Removed,
    /// The version of the master's metadata when no client could be answered any more; `None` if it could not be asked, or
    /// does not tell.
    pub(crate) version: Option<Version>,
}

/// Removes the address with nothing of the master here on its way. The master is asked on `own`. `close` closes the lease, or
/// says why it cannot; it comes back in time, whatever the kernel does.
pub(crate) fn remove_address(
    vip: &VirtualIp,
    own: SocketAddrV4,
    close: impl FnOnce(&Lease) -> Result<(), String>,
) -> Result<Left, address::Error> {
    if !vip.holds()? {
        return Ok(Left { removed: Removed::NotThere, version: None });
    }
    let version = drain(vip.address, own, close);
    Ok(Left { removed: vip.remove()?, version })
}

/// Closes the lease here. The kernel may take its time: then a thread of this process stays behind.
pub(crate) fn close(lease: &Lease) -> Result<(), String> {
    let lease = lease.clone();
    let closed = process::within(timing::HOOK_LEASE, move || lease.install().and_then(|()| lease.close()));
    closed.unwrap_or(Err(Errno::ETIMEDOUT)).map_err(|e| e.to_string())
}

/// Holds answers back, and waits until the changes of earlier answers have reached the metaloggers.
fn drain(vip: Ipv4Addr, own: SocketAddrV4, close: impl FnOnce(&Lease) -> Result<(), String>) -> Option<Version> {
    // There is no table where another program has removed it, or where a promotion by hand serves.
    close(&Lease::on(vip, own.port())).inspect_err(|e| log::debug!("cannot hold answers to clients back: {e}")).ok()?;
    let start = Instant::now();
    // Without a master there is nothing to wait for.
    let info = moosefs::info(own, timing::DRAIN_LOOP_PASS).ok()?;
    while is_unacknowledged(vip, own.port()) && start.elapsed() < timing::DRAIN_ACKNOWLEDGED {
        sleep(Duration::from_millis(1));
    }
    log::debug!("waited {} for metaloggers to acknowledge", human(start.elapsed()));
    info.metadata_version
}

/// Whether anything that was sent from `vip`, except to clients, is not acknowledged yet.
fn is_unacknowledged(vip: Ipv4Addr, clients: u16) -> bool {
    let counts = |end: SocketAddrV4| *end.ip() == vip && end.port() != clients;
    tcp::connections().iter().any(|connection| connection.under_way && counts(connection.local))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::moosefs::workarounds::tcp_resets::tests::{Net, PORT, VIP};

    const METALOGGERS: u16 = 9419;
    /// The time between the master's answer and its message to the metalogger.
    const BETWEEN: Duration = Duration::from_millis(5);

    /// A master of one client and one metalogger: in each pass it answers questions, then the client, and then sends
    /// the change to the metalogger.
    fn serve(questions: &TcpListener, mut client: TcpStream, mut metalogger: TcpStream, end: &AtomicBool) {
        questions.set_nonblocking(true).unwrap();
        let mut asking = Vec::new();
        for change in 0..u8::MAX {
            if end.load(Ordering::Relaxed) {
                return;
            }
            while let Ok((stream, _)) = questions.accept() {
                stream.set_nonblocking(true).unwrap();
                asking.push(stream);
            }
            asking.retain_mut(|stream| {
                let asked = stream.read_exact(&mut [0; 8]).is_ok();
                if asked {
                    let answer =
                        [&511_u32.to_be_bytes()[..], &121_u32.to_be_bytes(), &[0, 3, 0, 117], &[0; 117]].concat();
                    stream.write_all(&answer).unwrap();
                }
                !asked
            });
            let _ = client.write_all(&[change]);
            sleep(BETWEEN);
            let _ = metalogger.write_all(&[change]);
        }
    }

    /// The last byte that arrives.
    fn last(mut stream: TcpStream) -> u8 {
        stream.set_read_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut all = Vec::new();
        let mut buffer = [0; 64];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            all.extend_from_slice(&buffer[..length]);
        }
        *all.last().unwrap()
    }

    #[test]
    fn the_address_goes_also_if_the_packet_filter_hangs() {
        let (_net, _) = Net::new();
        let vip = VirtualIp { interface: "eth0".to_owned(), address: VIP };
        let hangs = |_: &Lease| process::within(timing::HOOK_LEASE, std::thread::park).ok_or("no answer".to_owned());
        let begun = Instant::now();
        let left = remove_address(&vip, SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT), hangs).unwrap();
        assert_eq!(left, Left { removed: Removed::Removed, version: None });
        assert!(begun.elapsed() < timing::HOOK_MUTEX * 5, "{:?}", begun.elapsed());
        assert!(!vip.holds().unwrap());
    }

    #[test]
    fn the_metalogger_has_every_change_that_the_client_knows_of() {
        let (net, _) = Net::new();
        let (questions, door) =
            (TcpListener::bind(("0.0.0.0", PORT)).unwrap(), TcpListener::bind((VIP, METALOGGERS)).unwrap());
        let (client, metalogger) = (net.connect(PORT), net.connect(METALOGGERS));
        let (theirs, others) = (questions.accept().unwrap().0, door.accept().unwrap().0);
        for stream in [&theirs, &others] {
            stream.set_nodelay(true).unwrap();
        }
        std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        let end = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&questions, theirs, others, &end));
            // In the middle of a pass.
            sleep(BETWEEN * 10 + BETWEEN / 3);
            let vip = VirtualIp { interface: "eth0".to_owned(), address: VIP };
            let left = remove_address(&vip, SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT), close).unwrap();
            assert_eq!(left.removed, Removed::Removed);
            let [answered, known] = [client, metalogger].map(last);
            end.store(true, Ordering::Relaxed);
            assert!(answered > 3 && known >= answered, "answered {answered}, known {known}");
        });
    }
}
