//! Writing a file in blocks, with one thread to make them and another to write them: while one block is judged and put
//! together, the one before it goes into the page cache.

use std::fs::File;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};

use super::BLOCK;

/// Full blocks that may wait for the writer.
const WAITING: usize = 2;

/// The block that is being filled.
pub(super) struct Blocks {
    block: Vec<u8>,
    full: SyncSender<Vec<u8>>,
    written: Receiver<Vec<u8>>,
}

impl Blocks {
    /// Runs `put_all`, and writes what it appends to `file` at the same time; `wrote` is called with the size of each
    /// block, and can end the work. All is written when this returns. If writing fails, that is the error, and `append` fails too.
    pub(super) fn write<T, E>(
        file: &File,
        wrote: impl FnMut(u64) -> io::Result<()> + Send,
        failed: impl FnOnce(io::Error) -> E,
        put_all: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        std::thread::scope(|scope| {
            let (full, filled) = mpsc::sync_channel(WAITING);
            let (back, written) = mpsc::channel();
            let writer = scope.spawn(move || write_all(file, &filled, &back, wrote));
            let mut blocks = Self { block: Vec::with_capacity(BLOCK), full, written };
            let made = put_all(&mut blocks);
            // The writer is gone only if it failed.
            let _ = blocks.hand_on();
            drop(blocks);
            // A panic ends the whole process (panic = "abort").
            let result = writer.join().unwrap();
            result.map_err(failed).and(made)
        })
    }

    /// Appends what is in `parts`.
    pub(super) fn append(&mut self, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if self.block.len() + length > BLOCK {
            self.hand_on()?;
        }
        for part in parts {
            self.block.extend_from_slice(part);
        }
        Ok(())
    }

    fn hand_on(&mut self) -> io::Result<()> {
        let empty = self.written.try_recv().unwrap_or_else(|_| Vec::with_capacity(BLOCK));
        let block = std::mem::replace(&mut self.block, empty);
        self.full.send(block).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn write_all(
    mut file: &File,
    filled: &Receiver<Vec<u8>>,
    back: &Sender<Vec<u8>>,
    mut wrote: impl FnMut(u64) -> io::Result<()>,
) -> io::Result<()> {
    for mut block in filled {
        file.write_all(&block)?;
        wrote(block.len() as u64)?;
        block.clear();
        // Wanted only while there is more to put.
        let _ = back.send(block);
    }
    Ok(())
}
