//! SipHash-2-4 (Aumasson and Bernstein, 2012) over a whole number of 64-bit words.

/// The tag of `words`, read as little-endian bytes, under `key`.
#[inline(always)]
pub fn siphash24<const N: usize>(key: [u64; 2], words: &[u64; N]) -> u64 {
    let mut v = [
        key[0] ^ 0x736f_6d65_7073_6575,
        key[1] ^ 0x646f_7261_6e64_6f6d,
        key[0] ^ 0x6c79_6765_6e65_7261,
        key[1] ^ 0x7465_6462_7974_6573,
    ];
    let mut i = 0;
    while i < N {
        compress(&mut v, words[i]);
        i += 1;
    }
    // The last block carries the length in bytes, modulo 256.
    compress(&mut v, (N as u64 * 8) << 56);
    v[2] ^= 0xff;
    round(&mut v);
    round(&mut v);
    round(&mut v);
    round(&mut v);
    v[0] ^ v[1] ^ v[2] ^ v[3]
}

#[inline(always)]
fn compress(v: &mut [u64; 4], word: u64) {
    v[3] ^= word;
    round(v);
    round(v);
    v[0] ^= word;
}

#[inline(always)]
fn round(v: &mut [u64; 4]) {
    v[0] = v[0].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(13) ^ v[0];
    v[0] = v[0].rotate_left(32);
    v[2] = v[2].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(16) ^ v[2];
    v[0] = v[0].wrapping_add(v[3]);
    v[3] = v[3].rotate_left(21) ^ v[0];
    v[2] = v[2].wrapping_add(v[1]);
    v[1] = v[1].rotate_left(17) ^ v[2];
    v[2] = v[2].rotate_left(32);
}

#[cfg(test)]
mod tests {
    use super::siphash24;

    /// The key and the messages 00 01 02 … of the reference implementation's `vectors_sip64`.
    const KEY: [u64; 2] = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];

    fn message<const N: usize>() -> [u64; N] {
        core::array::from_fn(|word| u64::from_le_bytes(core::array::from_fn(|byte| (word * 8 + byte) as u8)))
    }

    #[test]
    fn agrees_with_the_published_vectors() {
        assert_eq!(siphash24(KEY, &message::<0>()), 0x726f_db47_dd0e_0e31);
        assert_eq!(siphash24(KEY, &message::<1>()), 0x93f5_f579_9a93_2462);
        assert_eq!(siphash24(KEY, &message::<2>()), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    fn every_bit_of_a_beat_matters() {
        let words = message::<8>();
        let tag = siphash24(KEY, &words);
        for bit in 0..512 {
            let mut flipped = words;
            flipped[bit / 64] ^= 1 << (bit % 64);
            assert_ne!(siphash24(KEY, &flipped), tag, "bit {bit}");
        }
    }
}
