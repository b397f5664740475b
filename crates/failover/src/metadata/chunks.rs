//! What a staged history ends with, so that its chunks can be used: changes of our own.
//!
//! **Locks.** For a write the master logs `WRITE(inode,index,…):CHUNK`, which locks the chunk, has a chunkserver make it,
//! answers the client, and logs `UNLOCK(CHUNK)` when the client is done. If it dies before the answer, the client asks the
//! next master, which has replayed the lock and refuses until the lock expires, 120 s later (`LOCKTIMEOUT` in
//! `mfsmaster/chunks.c`): the one write that a crash cuts in two makes its program hang for two minutes. So there is an
//! `UNLOCK` for each chunk that was locked within the last second and not unlocked. A client that did get its answer in that
//! second is not harmed: it goes on writing to the chunkservers and ends with the same `UNLOCK`. Older locks stay, they
//! belong to clients that are writing. To MooseFS 4 an `UNLOCK` is a lock that ends a second before the time of the line
//! (`chunk_mr_unlock`), so where the clock of the dead master was ahead, the line has the time of this machine.
//!
//! **Ids.** A new chunk gets the next number. If the network is split, and chunkservers are in both halves, the old master and
//! the promoted one would give the same numbers to chunks of different files; when the network is whole again, a file of the
//! history that is served would be read from a chunk of the other one. So each promotion skips [`SKIPPED`] numbers for each epoch
//! that it goes on by, by `NEXTCHUNKID`, which every release from 2.0 to 4.59 replays (`chunk_mr_nextchunkid`). Two machines that
//! are promoted from one copy begin different epochs.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::changelog::Line;

/// How long before the last change a lock may be for the client to be waiting for the answer, in the whole seconds that
/// a log has.
const ANSWER: u64 = 1;
/// How many ids of chunks an epoch skips: more than are made while a network is split. A master ignores a chunk whose id is 10^9
/// above its own next one (`chunk_server_has_chunk`), instead of removing it some time; so it is far less than that.
const SKIPPED: u64 = 100_000_000;
/// The highest id: the rest of the 64 bits are for parts of chunks (4.x, `COMBINE_CHUNKID_AND_ECID`).
const HIGHEST: u64 = (1 << 56) - 1;

/// The chunks of a history, as far as its end matters.
#[derive(Debug, Default)]
pub(super) struct Chunks {
    /// When each locked chunk was locked, in Unix seconds of the master's clock.
    locked: BTreeMap<u64, u64>,
    last_time: u64,
    /// The id of the next new chunk; `None` where no ids are to be skipped, or the image does not tell it.
    next: Option<u64>,
    /// How many ids are to be skipped.
    skipped: u64,
}

/// Changes that end a history, each without its id.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Ending {
    pub(super) changes: Vec<String>,
    /// How many of them unlock a chunk.
    pub(super) unlocked: u64,
}

impl Chunks {
    /// Those of an image in which `next` is the id of the next new chunk. The promotion goes on by so many epochs.
    pub(super) fn of_image(next: Option<u64>, epochs: u64) -> Self {
        Self { next, skipped: epochs.saturating_mul(SKIPPED), ..Self::default() }
    }

    /// Takes note of the next change.
    pub(super) fn see(&mut self, line: &Line) {
        if line.time > self.last_time {
            // Older locks are not ours to end: memory holds two seconds of writes.
            self.locked.retain(|_, time| *time + ANSWER >= line.time);
        }
        self.last_time = line.time;
        match effect_of(line.operation) {
            Some(Effect::Locked(chunk)) => {
                self.locked.insert(chunk, line.time);
                self.there_is(chunk);
            }
            Some(Effect::Unlocked(chunk)) => drop(self.locked.remove(&chunk)),
            Some(Effect::Added(chunk)) => self.there_is(chunk),
            Some(Effect::Next(next)) => self.next = self.next.max(self.next.and(Some(next))),
            None => (),
        }
    }

    fn there_is(&mut self, chunk: u64) {
        self.next = self.next.map(|next| next.max(chunk.saturating_add(1)));
    }

    /// What ends the history.
    pub(super) fn ending(&self) -> Ending {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |now| now.as_secs());
        // Not a time that is still to come for the master of this machine.
        let time = if self.last_time > 0 { self.last_time.min(now) } else { now };
        let cut_off = self.locked.iter().filter(|(_, locked)| **locked + ANSWER >= self.last_time);
        let mut changes: Vec<String> = cut_off.map(|(chunk, _)| format!("{time}|UNLOCK({chunk})")).collect();
        let unlocked = changes.len() as u64;
        let next = self.next.and_then(|next| next.checked_add(self.skipped));
        changes.extend(next.filter(|next| *next <= HIGHEST).map(|next| format!("{time}|NEXTCHUNKID({next})")));
        Ending { changes, unlocked }
    }
}

/// The effect of a change on a chunk.
#[derive(Debug, PartialEq, Eq)]
enum Effect {
    Locked(u64),
    Unlocked(u64),
    Added(u64),
    Next(u64),
}

/// `WRITE(…):CHUNK`, `TRUNC(…):CHUNK`, `UNLOCK(CHUNK)`, `CHUNKDEL(CHUNK,VERSION)`, `CHUNKADD(CHUNK,VERSION,LOCKED_TO)`,
/// `NEXTCHUNKID(CHUNK)`: the same from 2.0 to 4.59 (`mfsmaster/restore.c`), and all that make a chunk. To unlock a chunk that
/// is unlocked changes nothing, to unlock one that is gone is an error that ends the replay (`chunk_mr_unlock`); a master that
/// could not make a chunk drops its lock without a line, and then the chunk.
fn effect_of(op: &[u8]) -> Option<Effect> {
    let named = [
        (&b"UNLOCK("[..], Effect::Unlocked as fn(u64) -> Effect),
        (b"CHUNKDEL(", Effect::Unlocked),
        (b"CHUNKADD(", Effect::Added),
        (b"NEXTCHUNKID(", Effect::Next),
    ];
    for (name, effect) in named {
        if let Some(arguments) = op.strip_prefix(name) {
            return number(arguments.strip_suffix(b")")?.split(|byte| *byte == b',').next()?).map(effect);
        }
    }
    if !op.starts_with(b"WRITE(") && !op.starts_with(b"TRUNC(") {
        return None;
    }
    let colon = op.iter().rposition(|byte| *byte == b':')?;
    if op[..colon].last() != Some(&b')') {
        return None;
    }
    // 0 is an error or no chunk at all.
    number(&op[colon + 1..]).filter(|chunk| *chunk > 0).map(Effect::Locked)
}

fn number(digits: &[u8]) -> Option<u64> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::super::changelog;
    use super::*;

    fn chunks(next: Option<u64>, epochs: u64, log: &[&str]) -> Chunks {
        let mut chunks = Chunks::of_image(next, epochs);
        for text in log {
            chunks.see(&changelog::parse(text.as_bytes()).unwrap());
        }
        chunks
    }

    fn ending(log: &[&str]) -> Vec<String> {
        let ending = chunks(None, 0, log).ending();
        assert_eq!(ending.changes.len() as u64, ending.unlocked);
        ending.changes
    }

    #[test]
    fn a_promotion_skips_ids_of_chunks() {
        let log = ["6: 100|WRITE(996,0,1,0):41", "7: 100|UNLOCK(41)", "8: 101|CHUNKADD(43,1,900)", "9: 101|ACCESS(1)"];
        let skips = |next, log: &[&str]| chunks(next, 1, log).ending().changes;
        assert_eq!(skips(Some(40), &log), ["101|NEXTCHUNKID(100000044)"]);
        assert_eq!(skips(Some(40), &log[..2]), ["100|NEXTCHUNKID(100000042)"]);
        assert_eq!(skips(Some(90), &log), ["101|NEXTCHUNKID(100000090)"], "an older chunk was written");
        let again = [
            log[0],
            log[1],
            "8: 100|NEXTCHUNKID(100000042)",
            "9: 102|TRUNC(996,0,0):100000042",
            "10: 102|UNLOCK(100000042)",
        ];
        assert_eq!(skips(Some(40), &again), ["102|NEXTCHUNKID(200000043)"]);
        assert_eq!(skips(None, &log), <[&str; 0]>::default(), "no replay bears a smaller id than the next one");
        assert_eq!(skips(Some(HIGHEST), &log), <[&str; 0]>::default());
        assert_eq!(
            chunks(Some(40), 3, &log).ending().changes,
            ["101|NEXTCHUNKID(300000044)"],
            "beside another machine"
        );
        let cut = chunks(Some(40), 1, &log[..1]).ending();
        assert_eq!(
            (cut.unlocked, cut.changes),
            (1, vec!["100|UNLOCK(41)".into(), "100|NEXTCHUNKID(100000042)".into()])
        );
    }

    #[test]
    fn a_chunk_locked_at_the_end_is_unlocked() {
        assert_eq!(
            ending(&["5: 100|CREATE(6,w595,1,438,18,0,0,0):996", "6: 100|WRITE(996,0,1,0):596"]),
            ["100|UNLOCK(596)"]
        );
        assert_eq!(ending(&["6: 100|TRUNC(996,0,0):596", "7: 101|ACCESS(1)"]), ["101|UNLOCK(596)"]);
    }

    /// The new master would take the chunk as locked until its own clock shows that time.
    #[test]
    fn a_master_whose_clock_was_ahead_leaves_no_lock_for_the_time_to_come() {
        let ahead = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs() + 5 * 3600;
        let [change] = &ending(&[&format!("6: {ahead}|WRITE(996,0,1,0):596")])[..] else { panic!("one change") };
        let (time, unlock) = change.split_once('|').unwrap();
        assert_eq!(unlock, "UNLOCK(596)");
        assert!(time.parse::<u64>().unwrap() < ahead - 4 * 3600, "{change}");
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
            assert_eq!(effect_of(operation.as_bytes()), None, "{operation}");
        }
    }

    #[test]
    fn memory_stays_bounded_over_a_long_history() {
        let mut chunks = Chunks::default();
        for second in 0..100_u64 {
            for chunk in 1..=1000 {
                let text = format!("6: {}|WRITE(9,0,1,0):{}", 100 + second, second * 1000 + chunk);
                chunks.see(&changelog::parse(text.as_bytes()).unwrap());
            }
        }
        assert_eq!(chunks.locked.len(), 2000);
        assert_eq!(chunks.ending().unlocked, 2000);
    }
}
