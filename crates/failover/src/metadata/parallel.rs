//! Doing the same to several things at a time.

use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

/// More threads than this gain nothing: the disk, or the memory's bandwidth, is the limit by then.
const MOST: usize = 4;

/// Runs `work` on each thing, with as many threads as there are processors; results beside the things, in their order.
pub(super) fn map<T: Send + Sync, R: Send>(things: Vec<T>, work: impl Fn(&T) -> R + Sync) -> Vec<(T, R)> {
    let threads = thread::available_parallelism().map_or(1, NonZero::get).min(MOST).min(things.len());
    if threads <= 1 {
        return things
            .into_iter()
            .map(|thing| {
                let made = work(&thing);
                (thing, made)
            })
            .collect();
    }
    let next = AtomicUsize::new(0);
    let worker = || {
        let numbers = std::iter::repeat_with(|| next.fetch_add(1, Ordering::Relaxed));
        let mine = numbers.map_while(|number| Some((number, work(things.get(number)?))));
        mine.collect::<Vec<_>>()
    };
    let mut made: Vec<(usize, R)> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut made = worker();
        for other in others {
            // A panic ends the whole process (panic = "abort").
            made.extend(other.join().unwrap());
        }
        made
    });
    made.sort_by_key(|(number, _)| *number);
    things.into_iter().zip(made.into_iter().map(|(_, made)| made)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn everything_is_done_once_and_comes_back_in_order() {
        for count in [0, 1, 2, 100] {
            let slow = |number: &u64| {
                thread::sleep(Duration::from_micros(number * 7 % 10));
                number * 2
            };
            let expected: Vec<_> = (0..count).map(|number| (number, number * 2)).collect();
            assert_eq!(map((0..count).collect(), slow), expected);
        }
    }
}
