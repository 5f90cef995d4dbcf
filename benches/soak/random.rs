//! Numbers that a seed brings back.

/// A generator of its own for whoever needs one.
#[derive(Debug, Clone)]
pub(crate) struct Random(u64);

impl Random {
    /// The generator number `stream` of a seed (SplitMix64; Steele, Lea and Flood, 2014).
    pub(crate) fn new(seed: u64, stream: u64) -> Self {
        let mut z = seed.wrapping_add(stream.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Self((z ^ (z >> 31)) | 1)
    }

    /// A number below `limit` (xorshift64*; Vigna, 2016).
    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 11) % limit
    }

    /// One of several.
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        // An index below a length fits.
        all[usize::try_from(self.below(all.len() as u64)).unwrap_or_default()]
    }
}
