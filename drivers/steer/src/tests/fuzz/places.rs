//! Where frames are in a chain, as they say themselves: by addresses of Ethernet, and by NSH.

use catena_model::forwarding::{Direction, NshMetadata, PathId};

use super::sight::Frame;

/// The EtherType of NSH.
pub(super) const NSH: u16 = 0x894f;

#[derive(Clone, Copy, Debug)]
pub(super) struct Place {
    pub(super) path: PathId,
    pub(super) position: usize,
    pub(super) direction: Direction,
}

/// Where a frame has been, by itself.
pub(super) struct Told {
    pub(super) path: PathId,
    /// Not said where the instance tells it.
    pub(super) position: Option<usize>,
    pub(super) direction: Direction,
}

/// Destination and source: what says path, position and direction, and what says the other direction.
pub(super) fn tags(place: &Place) -> [u8; 12] {
    let [_, a, b, c] = place.path.0.to_be_bytes();
    let at = place.position as u8;
    let (source, destination) = match place.direction {
        Direction::Up => (at, 0x80 | at),
        Direction::Down => (0x80 | at, at),
    };
    [0x02, 0xca, a, b, c, destination, 0x02, 0xca, a, b, c, source]
}

pub(super) fn read_tag(frame: &Frame) -> Option<(PathId, usize, Direction)> {
    let [0x02, 0xca, a, b, c, at] = frame.source() else { return None };
    let direction = if at & 0x80 == 0 { Direction::Up } else { Direction::Down };
    Some((PathId(u32::from_be_bytes([0, a, b, c])), usize::from(at & 0x0f), direction))
}

/// RFC 8300 section 2.
pub(super) fn nsh(place: &Place, metadata: NshMetadata, is_v4: bool) -> Vec<u8> {
    let (md_type, length) = match metadata {
        NshMetadata::Fixed => (1, 24),
        NshMetadata::Variable => (2, 8),
    };
    let index = match place.direction {
        Direction::Up => 255 - place.position,
        Direction::Down => 120 + place.position,
    };
    let [_, a, b, c] = place.path.0.to_be_bytes();
    let mut header = vec![0; length];
    header[..2].copy_from_slice(&((63 << 6) | (length as u16 / 4)).to_be_bytes());
    header[2..8].copy_from_slice(&[md_type, if is_v4 { 1 } else { 2 }, a, b, c, index as u8]);
    header
}

/// Which function has set the index to this: each takes one off what it was given.
pub(super) fn nsh_place(index: u8) -> Option<(usize, Direction)> {
    match index {
        247..=254 => Some((254 - usize::from(index), Direction::Up)),
        119..=126 => Some((usize::from(index) - 119, Direction::Down)),
        _ => None,
    }
}
