//! Metadata to measure with, made by a real MooseFS: trees of snapshots, and changes made through a real mount.
//!
//! Made once, in minutes, and kept in the lab's cache: the files are what a metalogger holds when its master dies.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use lab::{Cluster, Machine, Release};
use nix::sys::signal::Signal;

/// An image and the changes behind it, as a metalogger keeps them.
#[derive(Clone, Debug)]
pub(crate) struct Input {
    /// Changes to replay.
    pub(crate) changes: u64,
    image: PathBuf,
    log: PathBuf,
}

/// Sizes of trees, in inodes, and how many changes are made behind each.
const TREES: [(u64, u64); 5] =
    [(10_000, 100_000), (200_000, 1_000_000), (1_000_000, 100_000), (4_000_000, 100_000), (20_000_000, 100_000)];
/// Entries of the folder of which snapshots are made.
const FOLDER: u64 = 2000;
/// No step takes longer.
const PATIENCE: Duration = Duration::from_secs(1200);

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// The tree of about this many inodes and the changes made after it, by the MooseFS of this release, or else that of this
/// host. Makes it the first time.
pub(crate) fn input(release: Option<Release>, inodes: u64, changes: u64) -> Result<Input> {
    let cache = env::var_os("LAB_CACHE").unwrap_or_else(|| OsString::from("/var/cache/moosefs-lab"));
    let trees = Path::new(&cache).join("bench");
    let trees = release.map_or_else(|| trees.clone(), |release| trees.join(format!("{release:?}")));
    let folder = trees.join(inodes.to_string());
    if !folder.is_dir() {
        make(release, &trees, inodes)?;
    }
    Ok(Input { changes, image: folder.join("image"), log: folder.join("changes") })
}

/// Makes the missing trees of up to this many inodes, in minutes.
fn make(release: Option<Release>, trees: &Path, most: u64) -> Result<()> {
    println!("making metadata to measure with, once");
    let build = Cluster::build().unjudged().masters(1).chunkservers(0);
    let cluster = release.into_iter().fold(build, lab::Builder::release).start()?;
    let client = |script: &str| cluster.machine("c1")?.must(&["bash", "-ec", script], PATIENCE);
    client(&format!(
        "mkdir /mnt/mfs/tree /mnt/mfs/copies; cd /mnt/mfs/tree; seq 1 2 {FOLDER} | sed s/^/folder-/ | xargs mkdir; \
         seq 2 2 {FOLDER} | sed s/^/a-file-/ | xargs touch"
    ))?;
    let mut copies = 0;
    for (inodes, changes) in
        TREES.into_iter().filter(|(inodes, _)| *inodes <= most && !trees.join(inodes.to_string()).is_dir())
    {
        println!("  {inodes} inodes, {changes} changes");
        let wanted = inodes / (FOLDER + 1);
        client(&format!(
            "for ((copy = {copies}; copy < {wanted}; copy++)); do \
             mfsmakesnapshot /mnt/mfs/tree /mnt/mfs/copies/$copy; done"
        ))?;
        copies = wanted;
        let making = trees.join(format!("{inodes}.partial"));
        let _ = fs::remove_dir_all(&making);
        fs::create_dir_all(&making)?;
        make_tree(&cluster, changes, &making)?;
        fs::rename(&making, trees.join(inodes.to_string()))?;
    }
    Ok(())
}

/// Saves the master's image, makes changes and saves them, and goes back to the image.
fn make_tree(cluster: &Cluster, changes: u64, folder: &Path) -> Result<()> {
    let (master, client) = (cluster.machine("m1")?, cluster.machine("c1")?);
    let (data, image) = (cluster.data("m1")?, folder.join("image"));
    master.must(&["mfsmaster", "stop"], PATIENCE)?;
    fs::copy(data.join("metadata.mfs"), &image)?;
    master.must(&["mfsmaster", "start"], PATIENCE)?;
    make_changes(client, changes)?;
    cluster.kill("m1", "mfsmaster", Signal::SIGKILL)?;
    cluster.expect("the end of the master", PATIENCE, || cluster.master_pid("m1").is_none().then_some(()))?;
    collect_changes(&data, folder)?;
    master.must(&["sh", "-c", "rm -f /var/lib/mfs/changelog.* /var/lib/mfs/metadata.mfs*"], PATIENCE)?;
    fs::copy(image, data.join("metadata.mfs"))?;
    master.give_to_mfs(&data.join("metadata.mfs"))?;
    master.must(&["mfsmaster", "start"], PATIENCE)?;
    Ok(())
}

/// Makes at least this many changes through the client's mount, as fast as they are made. One in eight is a file: users make
/// both.
pub(crate) fn make_changes(client: &Machine, changes: u64) -> Result<()> {
    let script = format!(
        "mkdir /mnt/mfs/changes; cd /mnt/mfs/changes; mkdir $(seq 0 99); \
         seq 1 {changes} | awk '{{ print int($1 % 100) \"/made-\" $1 }}' > /tmp/names; \
         awk 'NR % 8' /tmp/names | xargs -P 3 -n 500 mkdir; \
         awk '!(NR % 8)' /tmp/names | xargs -P 3 -n 500 bash -c 'for name; do : > $name; done' bash"
    );
    client.must(&["bash", "-ec", &script], PATIENCE)?;
    Ok(())
}

/// Writes what the master logged from the image on.
fn collect_changes(data: &Path, folder: &Path) -> Result<()> {
    let version = version(&folder.join("image"))?;
    let mut out = BufWriter::new(File::create(folder.join("changes"))?);
    // The clock may have struck the hour meanwhile.
    for number in (0..50).rev() {
        let Ok(log) = File::open(data.join(format!("changelog.{number}.mfs"))) else { continue };
        for line in BufReader::new(log).lines() {
            let line = line?;
            if line.split(':').next().and_then(|id| id.parse::<u64>().ok()).is_some_and(|id| id >= version) {
                writeln!(out, "{line}")?;
            }
        }
    }
    Ok(out.flush()?)
}

/// The version in an image's header.
pub(crate) fn version(image: &Path) -> Result<u64> {
    use std::os::unix::fs::FileExt;
    let mut version = [0; 8];
    File::open(image)?.read_exact_at(&mut version, 8)?;
    Ok(u64::from_be_bytes(version))
}

impl Input {
    /// The image, and the log with at least its changes.
    pub(crate) fn files(&self) -> [&Path; 2] {
        [&self.image, &self.log]
    }

    /// A folder with the image alone, as the metadata of a master that was stopped.
    pub(crate) fn own(&self) -> Result<PathBuf> {
        let folder = self.image.with_file_name("own");
        if !folder.is_dir() {
            fs::create_dir(&folder)?;
            std::os::unix::fs::symlink("../image", folder.join("metadata.mfs"))?;
        }
        Ok(folder)
    }

    /// Puts the files into a data folder, as a metalogger's copy.
    pub(crate) fn put(&self, data: &Path) -> Result<Vec<PathBuf>> {
        let (image, log) = (data.join("metadata_ml.mfs.back"), data.join("changelog_ml.0.mfs"));
        fs::copy(&self.image, &image)?;
        let mut to = BufWriter::new(File::create(&log)?);
        self.copy_changes(&mut BufReader::new(File::open(&self.log)?), &mut to, self.changes)?;
        to.flush()?;
        Ok(vec![image, log])
    }

    /// The next changes behind those that [`Input::put`] puts.
    pub(crate) fn next(&self, changes: u64) -> Result<Vec<u8>> {
        let (mut from, mut next) = (BufReader::new(File::open(&self.log)?), Vec::new());
        self.copy_changes(&mut from, &mut io::sink(), self.changes)?;
        self.copy_changes(&mut from, &mut next, changes)?;
        Ok(next)
    }

    fn copy_changes(&self, from: &mut impl BufRead, to: &mut impl Write, changes: u64) -> Result<()> {
        let mut line = Vec::new();
        for _ in 0..changes {
            line.clear();
            if from.read_until(b'\n', &mut line)? == 0 {
                return Err(format!("{} has too few changes", self.log.display()).into());
            }
            to.write_all(&line)?;
        }
        Ok(())
    }
}

/// A count as a coordinate.
#[allow(clippy::cast_precision_loss)] // far below 2^52
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}
