//! Repeatable random numbers from a seed, which the test prints.

/// `SplitMix64` (<https://prng.di.unimi.it/splitmix64.c>).
#[derive(Debug, Clone)]
pub(crate) struct Chance(u64);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The seed in `HAUL_SEED`, or a new one.
    pub(crate) fn seed() -> u64 {
        std::env::var("HAUL_SEED").map_or_else(
            |_| {
                let mut bytes = [0; 8];
                getrandom::fill(&mut bytes).expect("random bytes");
                u64::from_le_bytes(bytes)
            },
            |seed| seed.parse().expect("HAUL_SEED is a number"),
        )
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number from 0 to `end` − 1.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    /// True with a probability of 1 in `times`.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// One of these.
    pub(crate) fn pick<'a, T>(&mut self, choices: &'a [T]) -> &'a T {
        let at = self.below(choices.len() as u64);
        &choices[usize::try_from(at).expect("small")]
    }

    /// `length` random bytes.
    pub(crate) fn bytes(&mut self, length: u64) -> Vec<u8> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.next().to_le_bytes());
        let mut bytes = vec![0; usize::try_from(length).expect("small")];
        hasher.finalize_xof().fill(&mut bytes);
        bytes
    }
}

/// The number of repetitions: that in the environment `variable`, or else `usual`.
pub(crate) fn times(variable: &str, usual: u64) -> u64 {
    std::env::var(variable).map_or(usual, |times| times.parse().expect("a number"))
}
