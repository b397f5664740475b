//! The kernel's routes.

use std::net::Ipv4Addr;

/// Flags of a route (`linux/route.h`).
const UP: u32 = 1;
const GATEWAY: u32 = 2;

/// A router that a default route leads to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Gateway {
    /// The interface's name.
    pub(crate) interface: String,
    /// Its address on that link.
    pub(crate) address: Ipv4Addr,
}

/// The routers of the default routes that are in use.
pub(crate) fn gateways() -> Vec<Gateway> {
    let table = std::fs::read_to_string("/proc/thread-self/net/route").unwrap_or_default();
    let mut found: Vec<_> = table.lines().filter_map(gateway).collect();
    found.sort();
    found.dedup();
    found
}

/// `INTERFACE DESTINATION GATEWAY FLAGS REFERENCES USE METRIC MASK …`, addresses and flags in hexadecimal digits, addresses in
/// the machine's byte order.
fn gateway(row: &str) -> Option<Gateway> {
    let mut fields = row.split_ascii_whitespace();
    let interface = fields.next()?.to_owned();
    let mut number = |skip| u32::from_str_radix(fields.nth(skip)?, 16).ok();
    let (destination, address, flags, mask) = (number(0)?, number(0)?, number(0)?, number(3)?);
    let is_default = destination == 0 && mask == 0 && flags & (UP | GATEWAY) == UP | GATEWAY;
    is_default.then(|| Gateway { interface, address: address.to_ne_bytes().into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_default_route_in_use_has_a_gateway() {
        let address = u32::from_ne_bytes([172, 16, 0, 1]);
        let row = |destination: &str, flags: &str, mask: &str| {
            gateway(&format!("eth0\t{destination}\t{address:08X}\t{flags}\t0\t0\t100\t{mask}\t0\t0\t0"))
        };
        let expected = Gateway { interface: "eth0".to_owned(), address: Ipv4Addr::new(172, 16, 0, 1) };
        assert_eq!(row("00000000", "0003", "00000000"), Some(expected));
        assert_eq!(row("00000000", "0001", "00000000"), None, "a route to a link");
        assert_eq!(row("00000000", "0002", "00000000"), None, "down");
        assert_eq!(row("0000000A", "0003", "000000FF"), None, "another network");
        assert_eq!(row("00000000", "0003", "00000080"), None, "half of all");
        assert_eq!(gateway("Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask"), None);
    }
}
