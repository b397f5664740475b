//! Netlink messages, as they are laid out in memory. One request at a time, or one batch: every answer belongs to the last
//! one, so sequence numbers and ports are not needed.

use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

pub(crate) const NLM_F_REQUEST: u16 = 0x1;
pub(crate) const NLM_F_ACK: u16 = 0x4;
pub(crate) const NLM_F_CREATE: u16 = 0x400;
pub(crate) const NLMSG_ERROR: u16 = 2;
/// Length of `struct nlmsghdr`.
const HEADER: usize = 16;

/// A message with this payload, which is far below 4 GiB.
pub(crate) fn frame(kind: u16, flags: u16, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(HEADER + payload.len()).unwrap_or(u32::MAX);
    let mut message = length.to_ne_bytes().to_vec();
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend([0; 8]);
    message.extend(payload);
    message
}

/// Waits for the next messages.
pub(crate) fn receive(fd: &OwnedFd) -> nix::Result<Vec<u8>> {
    // The kernel never fills more than 32 KiB at once.
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
        }
    }
}

/// One netlink message.
pub(crate) struct Message<'a> {
    pub(crate) kind: u16,
    pub(crate) flags: u16,
    pub(crate) payload: &'a [u8],
}

impl Message<'_> {
    /// What an `NLMSG_ERROR` says; number 0 is a plain "done".
    pub(crate) fn error(&self) -> nix::Result<()> {
        let number = self.payload.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
        match number {
            Some(0) => Ok(()),
            Some(number) => Err(Errno::from_raw(-number)),
            None => Err(Errno::EBADMSG),
        }
    }
}

/// The messages in `buffer`; ends at the first that is not whole.
pub(crate) fn messages(buffer: &[u8]) -> Vec<Message<'_>> {
    let mut found = Vec::new();
    let mut rest = buffer;
    while let Some((length, kind, flags)) = read_header(rest) {
        let Some(payload) = rest.get(HEADER..length) else { break };
        found.push(Message { kind, flags, payload });
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    found
}

fn read_header(bytes: &[u8]) -> Option<(usize, u16, u16)> {
    let length = u32::from_ne_bytes(*bytes.first_chunk()?);
    let kind = u16::from_ne_bytes(*bytes.get(4..)?.first_chunk()?);
    let flags = u16::from_ne_bytes(*bytes.get(6..)?.first_chunk()?);
    Some((usize::try_from(length).ok()?, kind, flags))
}
