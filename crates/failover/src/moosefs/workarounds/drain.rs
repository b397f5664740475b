//! Leaving the virtual address without a loss.
//!
//! A master sends an answer to its client, and in the same turn of its loop the change to the metaloggers. If the address
//! goes between the two, its connections are dead at once: the client has its answer, and nobody has the change. At some
//! hundred operations in a second that is met about once in twenty times.
//!
//! So first no segment to a client leaves any more: what is answered from here on is not known to anybody. Then the master
//! is asked something: when it answers, the turn that may have been under way is over. Then what it has sent to the
//! metaloggers is waited for until their kernels have it. Only then the address goes. All of it takes some 30 ms; where a
//! part of it cannot be done, the address goes all the same.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::moosefs;
use crate::sys::address::{self, Interface, Removed};
use crate::sys::netlink::Connection;
use crate::sys::nft::{Segments, hold_segments};
use crate::sys::tcp;

/// How long the master may take for a turn. With what follows it is less than another hook waits for its own.
const TURN: Duration = Duration::from_millis(60);
/// How long metaloggers may take to have what was sent to them: those that do not answer have lost it in any case.
const UNDER_WAY: Duration = Duration::from_millis(50);

/// Removes `vip` from `interface`, with nothing of the master here on its way: it listens to clients on `port` of `host`,
/// which is 0.0.0.0 for all of its addresses.
pub(crate) fn leave(
    interface: &Interface,
    vip: Ipv4Addr,
    host: Ipv4Addr,
    port: u16,
) -> Result<Removed, address::Error> {
    if !address::holds(interface, vip)? {
        return Ok(Removed::NotThere);
    }
    let held = finish(vip, host, port);
    let removed = address::remove(interface, vip);
    drop(held);
    removed
}

/// Holds answers back, and waits until what goes with the earlier ones has arrived. What it returns is to be kept until the
/// address is gone.
fn finish(vip: Ipv4Addr, host: Ipv4Addr, port: u16) -> Option<Connection> {
    // On the virtual address alone it could not be asked any more.
    let own = SocketAddrV4::new(if host.is_unspecified() { Ipv4Addr::LOCALHOST } else { host }, port);
    if moosefs::info(own, TURN).is_err() {
        return None;
    }
    let held = hold_segments(Segments::All, SocketAddrV4::new(vip, port));
    let held = held.inspect_err(|e| log::debug!("answers are not held back: {e}")).ok()?;
    let begun = Instant::now();
    if moosefs::info(own, TURN).is_ok() {
        while is_under_way(vip, port) && begun.elapsed() < UNDER_WAY {
            sleep(Duration::from_millis(1));
        }
    }
    log::debug!("nothing is under way any more after {:?}", begun.elapsed());
    Some(held)
}

/// Whether anything that was sent from `vip`, from another port than that of the clients, was not acknowledged yet.
fn is_under_way(vip: Ipv4Addr, clients: u16) -> bool {
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
    /// How slow the master is between its two words.
    const BETWEEN: Duration = Duration::from_millis(5);

    /// A master of one client and one metalogger: in each turn it answers the client and then tells the metalogger; and it
    /// answers questions.
    fn serve(questions: &TcpListener, mut client: TcpStream, mut metalogger: TcpStream, over: &AtomicBool) {
        questions.set_nonblocking(true).unwrap();
        let mut asking = Vec::new();
        for turn in 0..u8::MAX {
            if over.load(Ordering::Relaxed) {
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
            let _ = client.write_all(&[turn]);
            sleep(BETWEEN);
            let _ = metalogger.write_all(&[turn]);
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
    fn whatever_a_client_was_answered_the_metalogger_has() {
        let (net, index) = Net::new();
        let (questions, door) =
            (TcpListener::bind(("0.0.0.0", PORT)).unwrap(), TcpListener::bind((VIP, METALOGGERS)).unwrap());
        let (client, metalogger) = (net.connect(PORT), net.connect(METALOGGERS));
        let (theirs, others) = (questions.accept().unwrap().0, door.accept().unwrap().0);
        for stream in [&theirs, &others] {
            stream.set_nodelay(true).unwrap();
        }
        std::process::Command::new("ip").args(["link", "set", "lo", "up"]).status().unwrap();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| serve(&questions, theirs, others, &over));
            // In the middle of a turn.
            sleep(BETWEEN * 10 + BETWEEN / 3);
            let interface = Interface { name: "eth0".to_owned(), index };
            assert_eq!(leave(&interface, VIP, Ipv4Addr::UNSPECIFIED, PORT).unwrap(), Removed::Removed);
            let [answered, known] = [client, metalogger].map(last);
            over.store(true, Ordering::Relaxed);
            assert!(answered > 3 && known >= answered, "answered {answered}, known {known}");
        });
    }
}
