//! Random choices that a seed repeats.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub use fastrand::Rng;

use crate::Result;

/// One of these values.
pub fn pick<T: Clone>(rng: &mut Rng, values: &[T]) -> T {
    values[rng.usize(..values.len())].clone()
}

/// A random time below this many seconds.
pub fn seconds(rng: &mut Rng, limit: u64) -> Duration {
    Duration::from_millis(rng.u64(..limit * 1000))
}

/// A number from the environment.
///
/// # Panics
///
/// If it is something else.
pub fn variable(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
}

/// `LAB_SEED`, or the nanoseconds of the clock.
pub fn seed() -> u64 {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()));
    variable("LAB_SEED").unwrap_or_else(now)
}

/// A generator with [`seed`], which is printed.
pub fn rng() -> Rng {
    with_seed(seed())
}

/// Runs a test with the number of seeds that `LAB_SEEDS` says, or `usual`; once if `LAB_SEED` names the seed.
pub fn with_seeds(usual: u64, mut test: impl FnMut(Rng) -> Result<()>) -> Result<()> {
    let first = seed();
    let number = if variable("LAB_SEED").is_some() { 1 } else { variable("LAB_SEEDS").unwrap_or(usual) };
    (0..number).try_for_each(|next| test(with_seed(first.wrapping_add(next))))
}

fn with_seed(seed: u64) -> Rng {
    eprintln!("LAB_SEED={seed} repeats this run");
    Rng::with_seed(seed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_every_choice() {
        let draw = || {
            let mut rng = Rng::with_seed(277_544_100);
            let mut order: Vec<u32> = (0..20).collect();
            rng.shuffle(&mut order);
            (order, pick(&mut rng, &["a", "b", "c"]), seconds(&mut rng, 12), rng.u64(500..=12_000))
        };
        assert_eq!(draw(), draw());
    }
}
