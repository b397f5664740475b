//! The common parts of packets and packet sockets: numbers of protocols, the Internet checksum, the address of an
//! interface, and the few instructions of the kernel's packet filter (classic BPF) that are used here.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};

use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::LinkAddr;
use socket2::{Domain, Protocol, SockFilter, Socket, Type};

/// IPv4 in an Ethernet frame (`linux/if_ether.h`).
pub(crate) const ETH_P_IP: u16 = 0x0800;
/// ARP in an Ethernet frame.
pub(crate) const ETH_P_ARP: u16 = 0x0806;
/// TCP in an IP packet.
pub(crate) const TCP: u8 = 6;
/// How many packets are taken from a socket before the reader looks at the time: more than a socket's buffer holds, less than
/// a millisecond's work.
pub(crate) const MOST_AT_ONCE: usize = 512;
/// Flags of a TCP segment.
pub(crate) const RST: u8 = 0x04;
pub(crate) const ACK: u8 = 0x10;

/// Length of a TCP header without options.
pub(crate) const TCP_HEADER: usize = 20;

/// A position in a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// The number of the next byte.
    pub(crate) sequence: u32,
    /// The number of the byte that is expected next from the other end.
    pub(crate) acknowledged: u32,
}

/// The Internet checksum. It is 0 if the bytes contain their own checksum.
pub(crate) fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// A TCP segment without data from one end to another, in its IP packet. The kernel fills in the length and the checksum of the
/// IP header.
pub(crate) fn segment(from: SocketAddrV4, to: SocketAddrV4, flags: u8, position: Position) -> Vec<u8> {
    let [source, target] = [from, to].map(|end| end.ip().octets());
    let mut segment = [0; TCP_HEADER];
    segment[..2].copy_from_slice(&from.port().to_be_bytes());
    segment[2..4].copy_from_slice(&to.port().to_be_bytes());
    segment[4..8].copy_from_slice(&position.sequence.to_be_bytes());
    segment[8..12].copy_from_slice(&position.acknowledged.to_be_bytes());
    segment[12] = 5 << 4;
    segment[13] = flags;
    // The checksum covers the addresses too.
    let sum = checksum(&[&source[..], &target, &[0, TCP, 0, 20], &segment].concat());
    segment[16..18].copy_from_slice(&sum.to_be_bytes());
    [&[0x45, 0, 0, 40, 0, 0, 0, 0, 64, TCP, 0, 0][..], &source, &target, &segment].concat()
}

/// A socket that sends IP packets with TCP segments, from any address.
pub(crate) fn segment_sender() -> io::Result<Socket> {
    let sender = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::TCP))?;
    sender.set_header_included_v4(true)?;
    Ok(sender)
}

/// A socket that sends to a group from the address `own`, not to this machine, and with the hop limit of a neighbour.
pub(crate) fn multicast_sender(kind: Type, protocol: Protocol, own: Ipv4Addr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, kind, Some(protocol))?;
    socket.bind(&SocketAddrV4::new(own, 0).into())?;
    socket.set_multicast_if_v4(&own)?;
    socket.set_multicast_ttl_v4(255)?;
    socket.set_multicast_loop_v4(false)?;
    socket.set_ttl_v4(255)?;
    Ok(socket)
}

/// The address that binds a packet socket to interface number `index`.
pub(crate) fn link_address(index: u32) -> nix::Result<LinkAddr> {
    let mut all = nix::ifaddrs::getifaddrs()?.filter_map(|entry| entry.address?.as_link_addr().copied());
    all.find(|link| u32::try_from(link.ifindex()) == Ok(index)).ok_or(Errno::ENODEV)
}

/// Loads the byte at `offset`. A packet that is too short for a load is dropped.
pub(crate) fn load_byte(offset: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, offset)
}

/// Loads the four bytes at `offset`.
pub(crate) fn load_word(offset: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

/// Sets the index of the loads that follow to the length of the IP header that begins at `offset`.
pub(crate) fn index_by_ip_header(offset: u32) -> SockFilter {
    statement(libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH, offset)
}

/// Loads the byte at the index and `offset`.
pub(crate) fn load_indexed_byte(offset: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_B | libc::BPF_IND, offset)
}

/// Loads the two bytes at the index and `offset`.
pub(crate) fn load_indexed_half(offset: u32) -> SockFilter {
    statement(libc::BPF_LD | libc::BPF_H | libc::BPF_IND, offset)
}

/// Skips `equal` instructions if the loaded value is `value`, else `other`.
pub(crate) fn jump_if_equal(value: u32, equal: u8, other: u8) -> SockFilter {
    SockFilter::new(code(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K), equal, other, value)
}

/// Skips `some` instructions if the loaded value has one of the bits `mask`, else `none`.
pub(crate) fn jump_if_bits(mask: u32, some: u8, none: u8) -> SockFilter {
    SockFilter::new(code(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K), some, none, mask)
}

/// Lets the whole packet through.
pub(crate) fn accept() -> SockFilter {
    statement(libc::BPF_RET | libc::BPF_K, u32::MAX)
}

/// Drops the packet.
pub(crate) fn reject() -> SockFilter {
    statement(libc::BPF_RET | libc::BPF_K, 0)
}

fn statement(operation: u32, value: u32) -> SockFilter {
    SockFilter::new(code(operation), 0, 0, value)
}

/// The kernel keeps an operation in 16 bits.
fn code(operation: u32) -> u16 {
    u16::try_from(operation).unwrap_or_default()
}

#[cfg(test)]
pub(crate) mod tests {
    use std::os::unix::net::UnixDatagram;

    use socket2::SockRef;

    use super::*;

    /// Whether the kernel lets `packet` through `program`.
    pub(crate) fn passes(program: &[SockFilter], packet: &[u8]) -> bool {
        let (sender, receiver) = UnixDatagram::pair().unwrap();
        receiver.set_nonblocking(true).unwrap();
        SockRef::from(&receiver).attach_filter(program).unwrap();
        sender.send(packet).unwrap();
        let mut buffer = [0; 2048];
        receiver.recv(&mut buffer).is_ok_and(|length| buffer[..length] == *packet)
    }

    #[test]
    fn the_checksum_is_that_of_rfc_1071() {
        // The example of its section 3, and one with a byte alone at the end.
        assert_eq!(checksum(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]), !0xddf2);
        assert_eq!(checksum(&[0x00, 0x01, 0xf2]), !0xf201);
        assert_eq!(checksum(&[0x00, 0x01, 0xff, 0xfe]), 0, "it contains its own");
        assert_eq!(checksum(&[]), 0xffff);
    }

    type Load = fn(u32) -> SockFilter;

    #[test]
    fn the_kernel_runs_each_instruction_as_it_is_described() {
        // An IP header of 24 bytes, and three more.
        let packet = [&[0x46, 1, 2, 3, 4, 5], &[0; 18][..], &[7, 8, 9]].concat();
        assert!(passes(&[accept()], &packet) && !passes(&[reject()], &packet));
        let loads: [(Load, u32, u32); 4] = [
            (load_byte, 1, 0x01),
            (load_word, 2, 0x0203_0405),
            (load_indexed_byte, 1, 0x08),
            (load_indexed_half, 1, 0x0809),
        ];
        for (load, offset, value) in loads {
            let program = |value| [index_by_ip_header(0), load(offset), jump_if_equal(value, 0, 1), accept(), reject()];
            assert!(passes(&program(value), &packet), "{value:x}");
            assert!(!passes(&program(value + 1), &packet), "{value:x}");
            assert!(!passes(&program(value), &packet[..1]), "too short for {value:x}");
        }
        for (mask, expected) in [(0x42, true), (0x80, false)] {
            let program = [load_byte(0), jump_if_bits(mask, 0, 1), accept(), reject()];
            assert_eq!(passes(&program, &packet), expected, "{mask:x}");
        }
    }
}
