//! SplitMix64 (Steele, Lea & Flood, OOPSLA 2014): the same stream in every run and on every
//! machine.

/// A stream of random numbers determined by its seed.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// The stream of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `n`; 0 for `n` 0. The bias of the remainder is below 1e-13 for the sizes of
    /// data sets.
    pub fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n.max(1) as u64) as usize
    }

    /// A random element of a slice; `None` if it is empty.
    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> Option<&'a T> {
        of.get(self.below(of.len()))
    }
}

#[cfg(test)]
mod tests {
    use super::Random;

    #[test]
    fn the_stream_is_splitmix64() {
        // The first outputs for seed 1234567, of the reference implementation.
        let mut random = Random::new(1_234_567);
        let found = [(); 3].map(|()| random.below(1 << 63));
        let reference = [6_457_827_717_110_365_317_u64, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(found, reference.map(|x| (x % (1 << 63)) as usize));
        assert_eq!((random.below(0), random.below(1), random.pick::<u8>(&[])), (0, 0, None));
    }
}
