use std::time::SystemTime;

/// Reproducible chance (xorshift).
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A seed from the environment variable, which repeats a run as far as the machine's own timing lets it be repeated; else from
    /// the clock. It is printed.
    #[allow(clippy::print_stdout, reason = "whoever reads a failed run needs it")]
    pub fn seed(variable: &str) -> u64 {
        let given = std::env::var(variable).ok().and_then(|seed| seed.parse().ok());
        let clock =
            || SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |d| u64::from(d.subsec_nanos()));
        let seed = given.unwrap_or_else(clock);
        println!("{variable}={seed}");
        seed
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `end`.
    pub fn below(&mut self, end: u64) -> u64 {
        (self.next() >> 16) % end
    }

    /// One of them.
    #[allow(clippy::cast_possible_truncation, reason = "an index of a slice")]
    pub fn pick<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len() as u64) as usize]
    }

    /// True once in so many times.
    pub fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    /// Another one, for a task of its own.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.next())
    }
}
