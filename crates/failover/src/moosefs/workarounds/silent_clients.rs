//! Without this, clients notice a takeover up to three seconds after it, and those that send nothing not at all.
//!
//! A client whose server is gone sends its last data again 0.2, 0.6, 1.4, 3.0 and 6.2 s after the cut, and is reset by the machine
//! that has the address by then. If that is so shortly after one of these moments, the client does not know until the next one.
//! Chunkservers of 4.58 and later have nothing to send while they are idle.
//!
//! So the machine that takes over sends each end that was connected to the one before it a segment that is out of place: with
//! ACK, at number 0, then at 2³¹. The client's kernel answers with its place in the stream (RFC 793, RFC 5961), and the kernel here, which
//! knows no such connection, resets it. That is done once the master here listens: see [`tcp_resets`](super::tcp_resets). For a
//! connection that is gone, or to another machine by now, the segment changes nothing. Clustered NFS and Samba servers do the
//! same ("tickle ACK").

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::Duration;

use socket2::Socket;

use crate::sys::packet::{ACK, Position, segment, segment_sender};
use crate::sys::tcp::Connected;

/// So many segments at once, of 64 bytes on the wire each: less than the buffer of a switch's port.
const AT_ONCE: usize = 256;
/// Between them.
const PAUSE: Duration = Duration::from_millis(1);
/// A segment can be lost, or reach a machine that answers to the old hardware address. A kernel answers once in half a second.
const AGAIN: Duration = Duration::from_millis(600);
/// What is in place in a connection by chance is not so the second time.
const OUT_OF_PLACE: [u32; 2] = [0, 1 << 31];

/// Clients cannot be asked.
#[derive(Debug, thiserror::Error)]
#[error("cannot ask silent clients where they are in their connections")]
pub(crate) struct Error {
    /// The kernel's answer.
    #[source]
    source: std::io::Error,
}

/// Has the `silent` ends of lost connections to `server` reset, and a moment later, beside what follows, these and those that were
/// `heard` and reset already: each segment can be lost.
pub(crate) fn reset(server: Ipv4Addr, silent: Vec<Connected>, heard: Vec<Connected>) -> Result<(), Error> {
    if silent.is_empty() && heard.is_empty() {
        return Ok(());
    }
    let sender = segment_sender().map_err(|source| Error { source })?;
    let [first, second] = OUT_OF_PLACE;
    ask(&sender, server, &silent, first);
    let again = move || {
        thread::sleep(AGAIN);
        ask(&sender, server, &silent, second);
        ask(&sender, server, &heard, second);
    };
    if let Err(e) = thread::Builder::new().name("clients".to_owned()).spawn(again) {
        log::debug!("clients are asked once only: {e}");
    }
    Ok(())
}

fn ask(sender: &Socket, server: Ipv4Addr, lost: &[Connected], sequence: u32) {
    for some in lost.chunks(AT_ONCE) {
        for Connected { port, end } in some {
            let packet = segment(SocketAddrV4::new(server, *port), *end, ACK, Position { sequence, acknowledged: 0 });
            if let Err(e) = sender.send_to(&packet, &SocketAddrV4::new(*end.ip(), 0).into()) {
                log::debug!("cannot ask {end}: {e}");
            }
        }
        thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener};

    use super::*;
    use crate::moosefs::workarounds::tcp_resets::tests::{Net, PORT, VIP, is_reset, orphan, waits};

    fn end_of(client: &std::net::TcpStream) -> SocketAddrV4 {
        let Ok(SocketAddr::V4(end)) = client.local_addr() else { unreachable!() };
        end
    }

    #[test]
    fn a_client_that_sends_nothing_is_reset_and_no_other_one() {
        let (net, _) = Net::new();
        let [client, other] = [(); 2].map(|()| orphan(&net));
        reset(VIP, vec![Connected { port: PORT, end: end_of(&client) }], Vec::new()).unwrap();
        assert!(is_reset(&client));
        assert!(waits(&other), "it was not named");
    }

    #[test]
    fn one_whose_reset_was_lost_is_reset_a_moment_later() {
        let (net, _) = Net::new();
        let client = orphan(&net);
        reset(VIP, Vec::new(), vec![Connected { port: PORT, end: end_of(&client) }]).unwrap();
        assert!(is_reset(&client));
    }

    #[test]
    fn a_client_that_is_connected_to_this_machine_stays_so() {
        let (net, _) = Net::new();
        let listener = TcpListener::bind((VIP, PORT)).unwrap();
        let client = net.connect(PORT);
        let _server = listener.accept().unwrap();
        client.set_read_timeout(Some(AGAIN + PAUSE * 100)).unwrap();
        reset(VIP, vec![Connected { port: PORT, end: end_of(&client) }], Vec::new()).unwrap();
        assert!(waits(&client));
    }

    #[test]
    fn all_of_ten_thousand_are_asked() {
        let (_net, _) = Net::new();
        let lost: Vec<_> = (0..10_000)
            .map(|at| Connected { port: PORT, end: SocketAddrV4::new(Ipv4Addr::new(172, 16, 0, 51), 20_000 + at) })
            .collect();
        let sent = || {
            let text = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
            let row = text.lines().find(|line| line.trim_start().starts_with("eth0:")).unwrap();
            row.split_ascii_whitespace().nth(10).unwrap().parse::<usize>().unwrap()
        };
        let before = sent();
        reset(VIP, lost, Vec::new()).unwrap();
        assert!(sent() - before >= 10_000, "{before}");
    }
}
