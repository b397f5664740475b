//! Chunks that a crash left locked, without a client that will unlock them.
//!
//! For a write the master logs `WRITE(inode,index,…):CHUNK`, which locks the chunk, has a chunkserver make it, answers
//! the client, and logs `UNLOCK(CHUNK)` when the client is done. If it dies before the answer, the client asks the next
//! master, which has replayed the lock and refuses until the lock expires, 120 s later (`LOCKTIMEOUT` in
//! `mfsmaster/chunks.c`): the one write that a crash cuts in two makes its program hang for two minutes.
//!
//! So a staged history ends with an `UNLOCK` for each chunk that was locked within its last second and not unlocked. A
//! client that did get its answer in that second is not harmed: it goes on writing to the chunkservers and ends with
//! the same `UNLOCK`. Older locks stay, they belong to clients that are writing.

use std::collections::BTreeMap;

use super::changelog::Line;

/// How long before the last change a lock may be for the client to be waiting for the answer, in the whole seconds that
/// a log has.
const ANSWER: u64 = 1;

/// The locks of a history, as far as its end matters.
#[derive(Debug, Default)]
pub(super) struct ChunkLocks {
    /// When each chunk was locked, in Unix seconds of the master's clock.
    since: BTreeMap<u64, u64>,
    last_time: u64,
}

impl ChunkLocks {
    /// Takes note of the next change.
    pub(super) fn see(&mut self, line: &Line) {
        if line.time > self.last_time {
            // Older locks are not ours to end: memory holds two seconds of writes.
            self.since.retain(|_, time| *time + ANSWER >= line.time);
        }
        self.last_time = line.time;
        match chunk_of(line.operation) {
            Some(Touched::Locked(chunk)) => drop(self.since.insert(chunk, line.time)),
            Some(Touched::Unlocked(chunk)) => drop(self.since.remove(&chunk)),
            None => (),
        }
    }

    /// The changes that unlock what was locked in the last second of the history, each without its id.
    pub(super) fn ending(&self) -> Vec<String> {
        let cut_off = self.since.iter().filter(|(_, time)| **time + ANSWER >= self.last_time);
        cut_off.map(|(chunk, _)| format!("{}|UNLOCK({chunk})", self.last_time)).collect()
    }
}

/// The effect of a change on a chunk's lock.
#[derive(Debug, PartialEq, Eq)]
enum Touched {
    Locked(u64),
    Unlocked(u64),
}

/// `WRITE(…):CHUNK`, `TRUNC(…):CHUNK`, `UNLOCK(CHUNK)`, `CHUNKDEL(CHUNK,VERSION)`: the same from 2.0 to 4.59
/// (`mfsmaster/restore.c`). To unlock a chunk that is unlocked changes nothing, to unlock one that is gone is an error
/// that ends the replay (`chunk_mr_unlock`); a master that could not make a chunk drops its lock without a line, and
/// then the chunk.
fn chunk_of(op: &[u8]) -> Option<Touched> {
    if let Some(arguments) = op.strip_prefix(b"UNLOCK(") {
        return number(arguments.strip_suffix(b")")?).map(Touched::Unlocked);
    }
    if let Some(arguments) = op.strip_prefix(b"CHUNKDEL(") {
        return number(arguments.split(|byte| *byte == b',').next()?).map(Touched::Unlocked);
    }
    if !op.starts_with(b"WRITE(") && !op.starts_with(b"TRUNC(") {
        return None;
    }
    let colon = op.iter().rposition(|byte| *byte == b':')?;
    if op[..colon].last() != Some(&b')') {
        return None;
    }
    // 0 is an error or no chunk at all.
    number(&op[colon + 1..]).filter(|chunk| *chunk > 0).map(Touched::Locked)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::changelog;
    use super::*;

    fn ending(log: &[&str]) -> Vec<String> {
        let mut locks = ChunkLocks::default();
        for text in log {
            locks.see(&changelog::parse(text.as_bytes()).unwrap());
        }
        locks.ending()
    }

    #[test]
    fn a_chunk_locked_at_the_end_is_unlocked() {
        assert_eq!(
            ending(&["5: 100|CREATE(6,w595,1,438,18,0,0,0):996", "6: 100|WRITE(996,0,1,0):596"]),
            ["100|UNLOCK(596)"]
        );
        assert_eq!(ending(&["6: 100|TRUNC(996,0,0):596", "7: 101|ACCESS(1)"]), ["101|UNLOCK(596)"]);
    }

    #[test]
    fn one_that_was_unlocked_or_is_being_written_is_left_alone() {
        assert!(ending(&["6: 100|WRITE(996,0,1,0):596", "7: 100|UNLOCK(596)"]).is_empty());
        assert!(ending(&["6: 100|WRITE(996,0,1,0):596", "7: 102|ACCESS(1)"]).is_empty());
        assert!(ending(&["6: 100|WRITE(996,0,1,0):596", "7: 100|CHUNKDEL(596,1)"]).is_empty());
        assert_eq!(ending(&["6: 100|WRITE(9,0,1,0):5", "7: 100|UNLOCK(5)", "8: 100|WRITE(9,0,1,0):5"]).len(), 1);
    }

    #[test]
    fn what_only_looks_like_it_is_not_taken_for_it() {
        for operation in [
            "WRITE(996,0,1,0)",
            "WRITE(996,0,1,0):0",
            "WRITE(996,0,1,0):x",
            "UNLOCK(596):1",
            "SYMLINK(1,WRITE(1%29:7,x,0,0):9",
            "REWRITE(1,2):7",
        ] {
            assert_eq!(chunk_of(operation.as_bytes()), None, "{operation}");
        }
    }

    #[test]
    fn memory_stays_bounded_over_a_long_history() {
        let mut locks = ChunkLocks::default();
        for second in 0..100_u64 {
            for chunk in 1..=1000 {
                let text = format!("6: {}|WRITE(9,0,1,0):{}", 100 + second, second * 1000 + chunk);
                locks.see(&changelog::parse(text.as_bytes()).unwrap());
            }
        }
        assert_eq!(locks.since.len(), 2000);
        assert_eq!(locks.ending().len(), 2000);
    }
}
