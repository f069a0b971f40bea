//! IPv4 packets with a TCP segment that has no data, made and read by hand.

use std::net::SocketAddrV4;

/// SYN.
pub(super) const SYN: u8 = 0x02;
/// ACK.
pub(super) const ACK: u8 = 0x10;

/// Bytes of an IPv4 header without options.
const IP_BYTES: usize = 20;
/// Bytes of a TCP header without options.
const TCP_BYTES: usize = 20;
/// The option that says how long a segment may be: kind 2, four bytes, 1,460.
const LONGEST_SEGMENT: [u8; 4] = [2, 4, 5, 180];
const TCP: u8 = 6;

/// What a segment says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Segment {
    pub(super) from: SocketAddrV4,
    pub(super) to: SocketAddrV4,
    pub(super) sequence: u32,
    pub(super) acknowledged: u32,
    pub(super) flags: u8,
}

/// The Internet checksum (RFC 1071) of the parts in a row, of which all but the last have an even length.
fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u32;
    for part in parts {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

impl Segment {
    /// The packet, as it is given to a raw socket.
    pub(super) fn packet(&self) -> Vec<u8> {
        let options: &[u8] = if self.flags & SYN != 0 { &LONGEST_SEGMENT } else { &[] };
        let mut tcp = Vec::with_capacity(TCP_BYTES + options.len());
        tcp.extend(self.from.port().to_be_bytes());
        tcp.extend(self.to.port().to_be_bytes());
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledged.to_be_bytes());
        let words = (TCP_BYTES + options.len()) / 4;
        tcp.extend([(words as u8) << 4, self.flags]);
        // The window, the checksum that is not known yet, no urgent data.
        tcp.extend([0xff, 0xff, 0, 0, 0, 0]);
        tcp.extend(options);
        let (from, to) = (self.from.ip().octets(), self.to.ip().octets());
        let length = (tcp.len() as u16).to_be_bytes();
        let sum = checksum(&[&from, &to, &[0, TCP], &length, &tcp]);
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());
        let mut packet = Vec::with_capacity(IP_BYTES + tcp.len());
        packet.extend([0x45, 0]);
        packet.extend(((IP_BYTES + tcp.len()) as u16).to_be_bytes());
        // The kernel fills in the identification and the checksum of a header that is handed to it.
        packet.extend([0, 0, 0x40, 0, 64, TCP, 0, 0]);
        packet.extend(from);
        packet.extend(to);
        packet.extend(tcp);
        packet
    }

    /// What a packet says, if it is TCP over IPv4 and no fragment.
    pub(super) fn read(packet: &[u8]) -> Option<Self> {
        let bytes = |from: usize| packet.get(from..from + 4)?.try_into().ok();
        let [version, ..]: [u8; 4] = bytes(0)?;
        let [fragment_high, fragment_low, _, protocol] = bytes(6).map(|[a, b, c, d]: [u8; 4]| [a, b, c, d])?;
        let fragment = u16::from_be_bytes([fragment_high, fragment_low]) & 0x3fff;
        if version >> 4 != 4 || protocol != TCP || fragment != 0 {
            return None;
        }
        let header = usize::from(version & 0xf) * 4;
        let (from, to): ([u8; 4], [u8; 4]) = (bytes(12)?, bytes(16)?);
        let [from_high, from_low, to_high, to_low] = bytes(header)?;
        Some(Self {
            from: SocketAddrV4::new(from.into(), u16::from_be_bytes([from_high, from_low])),
            to: SocketAddrV4::new(to.into(), u16::from_be_bytes([to_high, to_low])),
            sequence: u32::from_be_bytes(bytes(header + 4)?),
            acknowledged: u32::from_be_bytes(bytes(header + 8)?),
            flags: *packet.get(header + 13)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segment(flags: u8) -> Segment {
        Segment {
            from: "10.99.0.1:40001".parse().unwrap(),
            to: "10.213.6.2:8009".parse().unwrap(),
            sequence: 0x0102_0304,
            acknowledged: 0xfffe_fdfc,
            flags,
        }
    }

    #[test]
    fn what_is_made_is_read() {
        for (flags, bytes) in [(SYN, 44), (ACK, 40), (SYN | ACK, 44)] {
            let packet = segment(flags).packet();
            assert_eq!((packet.len(), Segment::read(&packet)), (bytes, Some(segment(flags))));
        }
    }

    #[test]
    fn the_checksum_makes_the_sum_zero() {
        // The example of RFC 1071, section 3: 0001 f203 f4f5 f6f7 add up to ddf2.
        assert_eq!(checksum(&[&[0x00, 0x01, 0xf2, 0x03], &[0xf4, 0xf5, 0xf6, 0xf7]]), !0xddf2);
        let packet = segment(SYN).packet();
        let (from, to) = (&packet[12..16], &packet[16..20]);
        assert_eq!(checksum(&[from, to, &[0, TCP, 0, 24], &packet[20..]]), 0);
    }

    #[test]
    fn other_packets_are_not_read() {
        let good = segment(SYN).packet();
        let with = |at: usize, value: u8| {
            let mut packet = good.clone();
            packet[at] = value;
            packet
        };
        for (packet, what) in [
            (Vec::new(), "nothing"),
            (good[..30].to_vec(), "cut off"),
            (with(0, 0x65), "IPv6"),
            (with(9, 17), "UDP"),
            (with(7, 3), "a fragment"),
        ] {
            assert_eq!(Segment::read(&packet), None, "{what}");
        }
    }
}
