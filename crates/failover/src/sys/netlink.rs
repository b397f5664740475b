//! A connection to the kernel by netlink.
//!
//! Only the kernel can answer on it. It carries one request at a time, or one batch: every answer belongs to the last one,
//! so sequence numbers are not needed.

use std::io;
use std::time::Duration;

use netlink_packet_core::{
    DoneBuffer, Emitable, ErrorBuffer, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader,
};
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;
use socket2::SockRef;

/// A received message.
pub(crate) type Message<'a> = NetlinkBuffer<&'a [u8]>;

/// A connection to the kernel.
#[derive(Debug)]
pub(crate) struct Connection(Socket);

impl Connection {
    /// Connects to the part of the kernel that speaks `protocol`, one of [`netlink_sys::protocols`].
    pub(crate) fn open(protocol: isize) -> nix::Result<Self> {
        let socket = Socket::new(protocol).map_err(errno)?;
        // Port 0 is the kernel. Connected to it, the socket takes no message of another process.
        socket.connect(&SocketAddr::new(0, 0)).map_err(errno)?;
        Ok(Self(socket))
    }

    /// Answers that take longer than this are an error (`EAGAIN`).
    pub(crate) fn answer_within(&self, time: Duration) -> nix::Result<()> {
        SockRef::from(&self.0).set_read_timeout(Some(time)).map_err(errno)
    }

    /// Sends one request or one batch.
    pub(crate) fn send(&self, messages: &[u8]) -> nix::Result<()> {
        self.0.send(messages, 0).map(|_| ()).map_err(errno)
    }

    /// Waits for the next answer, of one or several [`messages`].
    pub(crate) fn receive(&self) -> nix::Result<Vec<u8>> {
        // The kernel never fills more than 32 KiB at once.
        let mut buffer = Vec::with_capacity(64 * 1024);
        loop {
            match self.0.recv(&mut buffer, 0).map_err(errno) {
                Ok(_) => return Ok(buffer),
                Err(Errno::EINTR) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

/// The kernel's number in an error of a socket.
pub(crate) fn errno(error: io::Error) -> Errno {
    Errno::try_from(error).unwrap_or(Errno::EIO)
}

/// The request of this kind with this content, which is a multiple of four bytes and far below 4 GiB.
pub(crate) fn request(kind: u16, flags: u16, content: &[u8]) -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.message_type = kind;
    header.flags = NLM_F_REQUEST | flags;
    header.length = u32::try_from(header.buffer_len() + content.len()).unwrap_or(u32::MAX);
    [bytes(&header).as_slice(), content].concat()
}

/// A part of a message in bytes.
pub(crate) fn bytes(part: &impl Emitable) -> Vec<u8> {
    let mut bytes = vec![0; part.buffer_len()];
    part.emit(&mut bytes);
    bytes
}

/// The messages in `buffer`. The list ends at the first that is not whole.
pub(crate) fn messages(buffer: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    let mut rest = buffer;
    while let Ok(message) = Message::new_checked(rest) {
        let length = usize::try_from(message.length()).unwrap_or(usize::MAX);
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        found.push(message);
    }
    found
}

/// Whether the request succeeded, if `message` is the one that says so: it ends the answer.
pub(crate) fn result(message: &Message<'_>) -> Option<nix::Result<()>> {
    let payload = message.payload();
    let code = match message.message_type() {
        NLMSG_ERROR => ErrorBuffer::new_checked(payload).map(|error| error.code().map_or(0, i32::from)),
        // Nothing in it is a success, too.
        NLMSG_DONE if payload.is_empty() => Ok(0),
        NLMSG_DONE => DoneBuffer::new_checked(payload).map(|done| done.code()),
        _ => return None,
    };
    Some(match code {
        Ok(0..) => Ok(()),
        Ok(code) => Err(Errno::from_raw(code.saturating_neg())),
        Err(_) => Err(Errno::EBADMSG),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_result_of_a_request_is_read_from_the_message_that_ends_the_answer() {
        let read = |kind, payload: &[u8]| {
            let bytes = [request(kind, 0, payload), request(99, 0, &[])].concat();
            let all: Vec<_> = messages(&bytes).iter().map(result).collect();
            assert_eq!((all.len(), all[1]), (2, None));
            all[0]
        };
        for end in [NLMSG_ERROR, NLMSG_DONE] {
            assert_eq!(read(end, &[0; 4]), Some(Ok(())));
            assert_eq!(read(end, &(-17_i32).to_ne_bytes()), Some(Err(Errno::EEXIST)));
        }
        assert_eq!(read(NLMSG_ERROR, &[]), Some(Err(Errno::EBADMSG)));
        assert_eq!(read(NLMSG_DONE, &[]), Some(Ok(())));
        assert_eq!(read(20, &[0; 4]), None);
    }
}
