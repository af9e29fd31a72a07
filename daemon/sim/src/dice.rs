//! All chance in a run comes from here: one seed, one sequence.

use oorandom::Rand64;

/// A sequence of throws.
#[derive(Debug, Clone)]
pub(crate) struct Dice(Rand64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Rand64::new(u128::from(seed)))
    }

    /// One of `low..=high`.
    pub(crate) fn range(&mut self, low: u64, high: u64) -> u64 {
        low + self.0.rand_u64() % (high - low + 1)
    }

    pub(crate) fn below(&mut self, count: usize) -> usize {
        self.range(0, count as u64 - 1) as usize
    }

    /// True so many times in a thousand.
    pub(crate) fn chance(&mut self, in_thousand: u64) -> bool {
        self.range(0, 999) < in_thousand
    }

    pub(crate) fn pick<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }
}
