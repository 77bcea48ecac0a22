//! What kind of place an address is (RFC 6890 and the registries it names). Pure.
//!
//! A name is somebody else's word: whoever owns it decides where it leads, and can decide otherwise a moment later. So
//! what is judged is the address that a connection goes to, and an address that carries another one inside (mapped,
//! translated, tunnelled) is judged by both.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What kind of place an address is, the harmless first: of two, the larger one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressKind {
    /// Somewhere on the Internet.
    Public,
    /// This host, a private network, or a range that is set aside for something else.
    Private,
    /// No place where an API could be: link-local, multicast, unspecified, or the metadata service of a cloud, which
    /// hands out the credentials of the machine.
    Never,
}

/// The kind of an address.
pub fn kind(address: IpAddr) -> AddressKind {
    match address {
        IpAddr::V4(address) => kind_v4(address),
        IpAddr::V6(address) => kind_v6(address),
    }
}

/// Metadata services outside of the link-local range: Azure, Alibaba Cloud and Oracle Cloud; below, AWS and Google.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

fn kind_v4(address: Ipv4Addr) -> AddressKind {
    if METADATA_V4.contains(&address) {
        return AddressKind::Never;
    }
    match address.octets() {
        // "This network", link-local, multicast, and all that is reserved above, with the broadcast address.
        [0 | 224.., ..] | [169, 254, ..] => AddressKind::Never,
        // Private (RFC 1918), loopback, carrier-grade NAT (RFC 6598).
        [10 | 127, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] => AddressKind::Private,
        // Protocol assignments, relays of 6to4, benchmarks, and three ranges for documentation.
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 18..=19, ..] | [198, 51, 100, _] | [203, 0, 113, _] => {
            AddressKind::Private
        }
        _ => AddressKind::Public,
    }
}

fn kind_v6(address: Ipv6Addr) -> AddressKind {
    let own = own_kind_v6(address);
    inner_v4(address).map_or(own, |inner| own.max(kind_v4(inner)))
}

fn own_kind_v6(address: Ipv6Addr) -> AddressKind {
    if address.is_unspecified() || METADATA_V6.contains(&address) {
        return AddressKind::Never;
    }
    match address.segments() {
        // Link-local and multicast.
        [0xfe80..=0xfebf | 0xff00.., ..] => AddressKind::Never,
        // An IPv4 address in other clothes is what that address is: mapped, and translated by NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => AddressKind::Public,
        // Likewise 6to4.
        [0x2002, ..] => AddressKind::Public,
        // Protocol assignments with Teredo, and documentation.
        [0x2001, 0..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => AddressKind::Private,
        [0x2000..=0x3fff, ..] => AddressKind::Public,
        // Loopback, unique-local, and everything that is not given out for the Internet.
        _ => AddressKind::Private,
    }
}

/// The IPv4 address that an IPv6 address carries: mapped (RFC 4291), compatible, translated (RFC 2765), NAT64 (RFC 6052,
/// RFC 8215), 6to4 (RFC 3056) and Teredo (RFC 4380, where it stands inverted).
fn inner_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let from = |high: u16, low: u16| Some(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, high, low] | [0, 0, 0, 0, 0xffff, 0, high, low] => from(high, low),
        [0x64, 0xff9b, 0 | 1, _, _, _, high, low] => from(high, low),
        [0x2002, high, low, ..] => from(high, low),
        [0x2001, 0, _, _, _, _, high, low] => from(!high, !low),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use AddressKind::{Never, Private, Public};

    #[track_caller]
    fn each(cases: &[(&str, AddressKind)]) {
        for (text, expected) in cases {
            assert_eq!(kind(text.parse().unwrap()), *expected, "{text}");
        }
    }

    #[test]
    fn e006_addresses_of_four_bytes() {
        each(&[
            ("1.1.1.1", Public),
            ("172.15.0.1", Public),
            ("172.32.0.1", Public),
            ("100.63.255.255", Public),
            ("100.128.0.0", Public),
            ("223.255.255.255", Public),
            ("10.0.0.1", Private),
            ("127.0.0.1", Private),
            ("127.255.255.254", Private),
            ("172.16.0.1", Private),
            ("172.31.255.255", Private),
            ("192.168.1.1", Private),
            ("100.64.0.1", Private),
            ("100.127.255.255", Private),
            ("192.0.0.1", Private),
            ("192.0.2.1", Private),
            ("198.18.0.1", Private),
            ("198.51.100.7", Private),
            ("203.0.113.7", Private),
            ("0.0.0.0", Never),
            ("0.1.2.3", Never),
            ("169.254.169.254", Never),
            ("169.254.0.1", Never),
            ("224.0.0.1", Never),
            ("240.0.0.1", Never),
            ("255.255.255.255", Never),
            ("168.63.129.16", Never),
            ("100.100.100.200", Never),
            ("192.0.0.192", Never),
        ]);
    }

    #[test]
    fn e006_addresses_of_sixteen_bytes() {
        each(&[
            ("2606:4700::1111", Public),
            ("2a00:1450::1", Public),
            ("::1", Private),
            ("fc00::1", Private),
            ("fd12:3456::1", Private),
            ("fec0::1", Private),
            ("2001:db8::1", Private),
            ("3fff::1", Private),
            ("2001:2::1", Private),
            ("4000::1", Private),
            ("::", Never),
            ("fe80::1", Never),
            ("febf::1", Never),
            ("ff02::1", Never),
            ("fd00:ec2::254", Never),
            ("fd20:ce::254", Never),
        ]);
    }

    #[test]
    fn e006_an_address_inside_of_another_counts_too() {
        each(&[
            ("::ffff:1.1.1.1", Public),
            ("::ffff:127.0.0.1", Private),
            ("::ffff:10.0.0.1", Private),
            ("::ffff:169.254.169.254", Never),
            ("::ffff:0.0.0.0", Never),
            ("::1.1.1.1", Private),
            ("::169.254.169.254", Never),
            ("::ffff:0:169.254.169.254", Never),
            ("64:ff9b::1.1.1.1", Public),
            ("64:ff9b::10.0.0.1", Private),
            ("64:ff9b::169.254.169.254", Never),
            ("64:ff9b:1::1.1.1.1", Private),
            ("64:ff9b:1::169.254.169.254", Never),
            ("2002:0101:0101::1", Public),
            ("2002:7f00:0001::1", Private),
            ("2002:a9fe:a9fe::1", Never),
            ("2001:0:1:2:3:4:5601:5601", Never),
            ("2001:0:1:2:3:4:fefe:fefe", Private),
        ]);
    }
}
