//! Random numbers that a seed repeats, for the scenarios that are drawn.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `SplitMix64`: any seed is a good one.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % limit
    }

    pub(crate) fn one_in(&mut self, limit: u64) -> bool {
        self.below(limit) == 0
    }

    pub(crate) fn pick<T: Clone>(&mut self, of: &[T]) -> T {
        let index = self.below(of.len() as u64);
        of[usize::try_from(index).expect("an index")].clone()
    }

    /// A number from `first` to `last`.
    pub(crate) fn between(&mut self, first: u64, last: u64) -> u64 {
        first + self.below(last - first + 1)
    }

    pub(crate) fn seconds(&mut self, limit: u64) -> Duration {
        Duration::from_millis(self.below(limit * 1000))
    }
}

/// A number from the environment.
pub(crate) fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// `LAB_SEED`, or one that nobody has chosen.
pub(crate) fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    variable("LAB_SEED").unwrap_or_else(now)
}

/// Dice of [`seed`], which is printed.
pub(crate) fn dice() -> Dice {
    let seed = seed();
    eprintln!("again with LAB_SEED={seed}");
    Dice::new(seed)
}

/// A scenario with so many seeds as `LAB_SEEDS` says, one after the other; with one if `LAB_SEED` names it.
pub(crate) fn with_seeds(usual: u64, mut scenario: impl FnMut(Dice) -> lab::Result<()>) -> lab::Result<()> {
    let first = seed();
    let number = if variable("LAB_SEED").is_some() { 1 } else { variable("LAB_SEEDS").unwrap_or(usual) };
    for seed in (0..number).map(|next| first.wrapping_add(next)) {
        eprintln!("again with LAB_SEED={seed}");
        scenario(Dice::new(seed))?;
    }
    Ok(())
}
