//! How long something has been as it is.

use std::time::{Duration, Instant};

/// What was seen last, and since when it is so.
#[derive(Debug)]
pub(super) struct Unchanged<T>(Option<(T, Instant)>);

impl<T> Default for Unchanged<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: PartialEq> Unchanged<T> {
    /// Takes in what is seen at `now`. How long it has been so.
    pub(super) fn lasted(&mut self, seen: T, now: Instant) -> Duration {
        match &self.0 {
            Some((last, since)) if *last == seen => now - *since,
            _ => {
                self.0 = Some((seen, now));
                Duration::ZERO
            }
        }
    }

    /// What is seen next is new.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}
