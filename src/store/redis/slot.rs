//! Which node of a cluster holds a key. Keys belong to slots, and slots to nodes.

use std::sync::atomic::{AtomicU16, Ordering};

/// How many slots every cluster has.
const SLOTS: u16 = 16_384;

/// A slot that no node is known for.
const NOBODY: u16 = u16::MAX;

/// The node of each slot, as an index into a list of nodes. A slot that is given to another node is noted at once.
pub(super) struct Slots(Vec<AtomicU16>);

impl Slots {
    /// Each row says who holds the slots from the first to the last; the rest is held by nobody.
    pub(super) fn new(rows: impl IntoIterator<Item = (u16, u16, usize)>) -> Self {
        let slots = Self((0..SLOTS).map(|_| AtomicU16::new(NOBODY)).collect());
        for (first, last, node) in rows {
            (first..=last).for_each(|slot| slots.note(slot, node));
        }
        slots
    }

    /// Who holds a slot.
    pub(super) fn holder(&self, slot: u16) -> Option<usize> {
        let node = self.0.get(usize::from(slot))?.load(Ordering::Relaxed);
        (node != NOBODY).then_some(usize::from(node))
    }

    /// Notes who holds a slot.
    pub(super) fn note(&self, slot: u16, node: usize) {
        if let (Some(place), Ok(node)) = (self.0.get(usize::from(slot)), u16::try_from(node)) {
            place.store(node, Ordering::Relaxed);
        }
    }
}

/// The slot of a key: only what stands in the first braces counts, if something does, so that keys can be kept together.
pub(super) fn slot_of(key: &str) -> u16 {
    let tag = key.split_once('{').and_then(|(_, rest)| Some(rest.split_once('}')?.0)).filter(|tag| !tag.is_empty());
    crc16(tag.unwrap_or(key).as_bytes()) % SLOTS
}

/// CRC-16/XMODEM, which the cluster specification names.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc: u16, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_hashed_as_servers_do() {
        // The check value of the cluster specification, and what CLUSTER KEYSLOT answers.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        for (key, slot) in [
            ("foo", 12_182),
            ("bar", 5_061),
            ("a:{foo}:b", 12_182),
            ("{foo}{bar}", 12_182),
            // Braces that hold nothing, or do not end, mean nothing.
            ("{}foo", crc16(b"{}foo") % SLOTS),
            ("foo{bar", crc16(b"foo{bar") % SLOTS),
        ] {
            assert_eq!(slot_of(key), slot, "{key}");
        }
    }

    #[test]
    fn slots_are_given_and_moved() {
        let slots = Slots::new([(0, 99, 0), (200, 16_383, 1)]);
        for (slot, holder) in
            [(0, Some(0)), (99, Some(0)), (100, None), (200, Some(1)), (16_383, Some(1)), (16_384, None)]
        {
            assert_eq!(slots.holder(slot), holder, "{slot}");
        }
        slots.note(99, 1);
        assert_eq!(slots.holder(99), Some(1));
        // A node from nowhere is passed over.
        slots.note(99, 70_000);
        slots.note(20_000, 0);
        assert_eq!(slots.holder(99), Some(1));
    }
}
