//! The little of MooseFS that the lab must know: its files, its settings, and the question INFO.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

/// The data folder of master and metalogger.
pub(crate) const DATA: &str = "/var/lib/mfs";
/// The folder in which a chunkserver keeps chunks.
pub(crate) const CHUNKS: &str = "/mnt/chunks";
/// Where the client mounts.
pub(crate) const MOUNT: &str = "/mnt/mfs";
/// Where the final check mounts once more, with empty caches.
pub(crate) const CHECK: &str = "/mnt/check";
/// What a new master starts from: a real, empty image of 3.0.117 (see `testdata/README.md`).
pub(crate) const IMAGE: &[u8] = include_bytes!("../testdata/metadata.mfs");
/// What the first start ever begins with.
pub(crate) const NEW: &[u8] = b"MFSM NEW";

const CLTOMA_INFO: u32 = 510;
const MATOCL_INFO: u32 = 511;
/// Where the metadata version is, by the length of the answer: MooseFS 3.0, and 4.
const META_VERSION: [(usize, usize); 2] = [(149, 121), (205, 125)];

/// The question INFO.
pub(crate) fn question() -> Vec<u8> {
    [CLTOMA_INFO.to_be_bytes(), [0; 4]].concat()
}

/// What has come of the answers on a connection.
#[derive(Debug, Default)]
pub(crate) struct Answers(Vec<u8>);

impl Answers {
    /// Reads once; whether an answer to [`question`] is whole now, of whatever form.
    pub(crate) fn read_from(&mut self, stream: &mut impl Read) -> io::Result<bool> {
        let mut buffer = [0; 1024];
        match stream.read(&mut buffer)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => self.0.extend_from_slice(&buffer[..length]),
        }
        let mut answered = false;
        while let (Some(kind), Some(length)) = (self.0.get(..4).map(number), self.0.get(4..8).map(number)) {
            if self.0.len() < 8 + length {
                break;
            }
            self.0.drain(..8 + length);
            answered |= kind == MATOCL_INFO as usize;
        }
        Ok(answered)
    }
}

/// Asks a master for its metadata version, as `mfscli -SIN` does; `within` is for each part of the answer.
pub(crate) fn info(address: SocketAddr, connecting: Duration, within: Duration) -> io::Result<u64> {
    let mut stream = TcpStream::connect_timeout(&address, connecting)?;
    stream.set_read_timeout(Some(within))?;
    stream.write_all(&question())?;
    loop {
        let mut head = [0; 8];
        stream.read_exact(&mut head)?;
        let (kind, length) = head.split_at(4);
        let mut body = vec![0; number(length).min(65_536)];
        stream.read_exact(&mut body)?;
        if number(kind) == MATOCL_INFO as usize {
            let at = META_VERSION.iter().find(|(length, _)| *length == body.len()).map(|(_, at)| *at);
            let field = at.and_then(|at| body.get(at..at + 8)?.try_into().ok());
            return field.map(u64::from_be_bytes).ok_or_else(|| io::Error::other("an unknown form of INFO"));
        }
    }
}

fn number(bytes: &[u8]) -> usize {
    bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}

/// The version that a metalogger's copy in `folder` reaches: one more than its last whole change, or its image's. A copy of a
/// fresh file system has changes and no image.
pub(crate) fn copy_reaches(folder: &Path) -> Option<u64> {
    let version = version_of_image(&folder.join("metadata_ml.mfs.back"));
    let log = fs::read(folder.join("changelog_ml.0.mfs")).unwrap_or_default();
    let whole = log.iter().rposition(|byte| *byte == b'\n').map_or(&[][..], |end| &log[..end]);
    let last = whole.rsplit(|byte| *byte == b'\n').next().and_then(|line| std::str::from_utf8(line).ok());
    let change = last.and_then(|line| line.split_once(':')).and_then(|(id, _)| id.parse::<u64>().ok());
    version.max(change.map(|id| id + 1))
}

/// The version in an image's header. An image can have gigabytes.
fn version_of_image(image: &Path) -> Option<u64> {
    let mut version = [0; 8];
    File::open(image).ok()?.read_exact_at(&mut version, 8).ok()?;
    Some(u64::from_be_bytes(version))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_counts_once_it_is_whole() {
        let answer = [&MATOCL_INFO.to_be_bytes()[..], &[0, 0, 0, 3], b"abc"].concat();
        let nothing = [0; 8];
        let mut answers = Answers::default();
        let mut read = |bytes: &[u8]| answers.read_from(&mut &*bytes).ok();
        assert_eq!(read(&[&nothing, &answer[..9]].concat()), Some(false));
        assert_eq!(read(&answer[9..]), Some(true));
        assert_eq!(read(&nothing), Some(false));
        assert_eq!(read(b""), None);
    }
}
