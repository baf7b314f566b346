//! The bytes of bulk transfers: both ends can tell what stands at any offset, without keeping or sending a copy.

use std::sync::OnceLock;

use rand::{RngCore, SeedableRng, rngs::SmallRng};

/// Length of a period: a prime, so that data lost or doubled in steps of segments, pages or buffers doesn't line up again.
const PERIOD: usize = 1_048_573;

fn block() -> &'static [u8] {
    static BLOCK: OnceLock<Vec<u8>> = OnceLock::new();
    BLOCK.get_or_init(|| {
        let mut bytes = vec![0; PERIOD];
        SmallRng::seed_from_u64(0x6261_746f_6e21).fill_bytes(&mut bytes);
        bytes
    })
}

/// Up to `limit` bytes of the pattern from `offset` on; at least one, if `limit` is not 0.
pub fn slice(offset: u64, limit: usize) -> &'static [u8] {
    let start = (offset % PERIOD as u64) as usize;
    let block = block();
    &block[start..PERIOD.min(start.saturating_add(limit))]
}

/// The position in `bytes` of the first that differs from the pattern from `offset` on.
pub fn first_difference(offset: u64, bytes: &[u8]) -> Option<usize> {
    let mut done = 0;
    while done < bytes.len() {
        let expected = slice(offset + done as u64, bytes.len() - done);
        let found = &bytes[done..done + expected.len()];
        if found != expected {
            return found.iter().zip(expected).position(|(f, e)| f != e).map(|at| done + at);
        }
        done += expected.len();
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_byte_and_a_shift_are_found_across_the_end_of_a_period() {
        let offset = PERIOD as u64 - 3;
        let mut bytes: Vec<u8> = slice(offset, 10).to_vec();
        assert_eq!(bytes.len(), 3);
        bytes.extend(slice(0, 5));
        assert_eq!(first_difference(offset, &bytes), None);
        bytes[4] ^= 1;
        assert_eq!(first_difference(offset, &bytes), Some(4));
        assert!(first_difference(0, slice(1_448, 1_448)).is_some());
    }
}
