//! Records of the ring buffer: from bytes to what they say.

use overwatch_common::event::{self, Activity, Change, Closed, Reset};

/// What the kernel side has to say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// A process moved bytes.
    Activity(Activity),
    /// A connection ended.
    Closed(Closed),
    /// A socket's state or owner changed.
    Change(Change),
    /// A RST was sent for a socket whose connection had ended.
    Reset(Reset),
}

impl Record {
    /// `None` for what is no record: too short for its kind, or of a kind that we do not know.
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        match read::<u32>(bytes)? {
            event::ACTIVITY => read(bytes).map(Self::Activity),
            event::CLOSED => read(bytes).map(Self::Closed),
            event::CHANGE => read(bytes).map(Self::Change),
            event::RESET => read(bytes).map(Self::Reset),
            _ => None,
        }
    }
}

/// `None` when the bytes are too few.
pub(super) fn read<T: aya::Pod>(bytes: &[u8]) -> Option<T> {
    // SAFETY: long enough, and every bit pattern is a T (Pod); the read asks for no alignment.
    (bytes.len() >= size_of::<T>()).then(|| unsafe { bytes.as_ptr().cast::<T>().read_unaligned() })
}

/// The bytes of a record as the kernel side writes it.
#[cfg(test)]
pub(super) fn bytes<T: aya::Pod>(record: T) -> Vec<u8> {
    // SAFETY: repr(C) without padding (Pod), so every byte of it is set.
    unsafe { std::slice::from_raw_parts((&raw const record).cast::<u8>(), size_of::<T>()) }.to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{model::fixtures::connection, random::Random};

    fn activity() -> (Activity, Vec<u8>) {
        let activity = Activity { kind: event::ACTIVITY, tgid: 42, sock: 0xffff_8880_0000_1000, created_ns: 7 };
        let fields: [&[u8]; 4] = [
            &1u32.to_ne_bytes(),
            &42u32.to_ne_bytes(),
            &activity.sock.to_ne_bytes(),
            &activity.created_ns.to_ne_bytes(),
        ];
        (activity, fields.concat())
    }

    fn closed() -> (Closed, Vec<u8>) {
        let closed =
            Closed { kind: event::CLOSED, pad: 0, sock: 0xffff_8880_0000_2000, connection: connection(42, 3, 4) };
        (closed, bytes(closed))
    }

    fn others() -> [(Record, Vec<u8>); 2] {
        let reset = Reset { kind: event::RESET, pad: 0, sock: 0xffff_8880_0000_3000 };
        let change = Change {
            kind: event::CHANGE,
            tgid: 42,
            sock: 0xffff_8880_0000_4000,
            created_ns: 5,
            time_ns: 7,
            since_ns: 6,
            cgroup_id: 9,
            listener: 10,
            established_ns: 11,
            local_addr: [1; 16],
            remote_addr: [2; 16],
            comm: [3; 16],
            netns: 8,
            local_port: 80,
            remote_port: 50_000,
            queued_behind: 12,
            old: 3,
            new: 1,
            role: 2,
            let_go: 1,
        };
        [(Record::Reset(reset), bytes(reset)), (Record::Change(change), bytes(change))]
    }

    #[test]
    fn records_are_read_as_they_were_written_wherever_they_stand() {
        let (activity, activity_bytes) = activity();
        let (closed, closed_bytes) = closed();
        let first = [(Record::Activity(activity), activity_bytes), (Record::Closed(closed), closed_bytes)];
        for (record, bytes) in first.into_iter().chain(others()) {
            for shift in 0..8 {
                // Also at odd addresses and with something behind, as ring buffers round lengths up.
                let moved = [vec![0xaa; shift], bytes.clone(), vec![0xbb; shift]].concat();
                assert_eq!(Record::read(&moved[shift..]), Some(record), "at {shift}");
            }
        }
    }

    #[test]
    fn what_is_too_short_or_of_another_kind_is_no_record() {
        let others = others().map(|(_, bytes)| bytes);
        for whole in [activity().1, closed().1].into_iter().chain(others) {
            for len in 0..whole.len() {
                assert_eq!(Record::read(&whole[..len]), None, "{len} of {}", whole.len());
            }
            for kind in [0u32, 5, 0x0100_0000, u32::MAX] {
                let mut bytes = whole.clone();
                bytes[..4].copy_from_slice(&kind.to_ne_bytes());
                assert_eq!(Record::read(&bytes), None, "kind {kind}");
            }
        }
    }

    #[test]
    fn random_bytes_are_a_record_or_none() {
        let mut random = Random::new(3);
        let mut records = 0;
        for _ in 0..20_000 {
            let mut bytes: Vec<u8> = (0..random.below(320)).map(|_| random.next() as u8).collect();
            if let Some(kind) = bytes.get_mut(..4) {
                kind.copy_from_slice(&(random.below(6) as u32).to_ne_bytes());
            }
            let expected = match bytes.first() {
                Some(1) => bytes.len() >= size_of::<Activity>(),
                Some(2) => bytes.len() >= size_of::<Closed>(),
                Some(3) => bytes.len() >= size_of::<Change>(),
                Some(4) => bytes.len() >= size_of::<Reset>(),
                _ => false,
            };
            let record = Record::read(&bytes);
            assert_eq!(record.is_some(), expected, "{bytes:?}");
            records += u32::from(record.is_some());
            if let Some(Record::Closed(closed)) = record {
                assert_eq!(closed.sock.to_ne_bytes(), bytes[8..16]);
                assert_eq!(closed.connection.created_ns.to_ne_bytes(), bytes[16..24]);
                assert_eq!(closed.connection.generation.to_ne_bytes(), bytes[284..288]);
            }
        }
        assert!(records > 1000, "{records}");
    }
}
