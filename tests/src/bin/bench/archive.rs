//! The archive that a promotion makes of a real image and its log, beside `tar cvaf X.tlz`, and what a client notices of it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use lab::{Cluster, Moment, log_lines};

use crate::inputs::{self, Input};
use crate::page::{Goal, Section, cell, row, shown, table};
use crate::power_cut::step_seconds;
use crate::sizes::peak_memory;
use crate::stats::Summary;
use crate::{Result, Setup};

/// How long the client is watched while no archive is written.
const CALM: Duration = Duration::from_secs(5);
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) fn section(setup: &Setup) -> Result<Section> {
    let (inodes, changes) = if setup.quick { (200_000, 100_000) } else { (1_000_000, 100_000) };
    let input = inputs::input(None, inodes, changes)?;
    let cluster = Cluster::build().unjudged().masters(1).start()?;
    cluster.wait_for_log("m1", log_lines::PROMOTION_ENDED, PATIENCE)?;
    let mut ours = Vec::new();
    let (files, shell) = tar(&cluster, &input)?;
    for _ in 0..setup.runs.min(3) {
        ours.push(archive(&cluster, &input)?);
    }
    let [calm, busy] = latencies(&cluster, &input)?;
    let time = Summary::of(ours.iter().map(|run| run.seconds));
    let memory = ours.iter().map(|run| run.memory).reduce(f64::max);
    let size = ours.first().map(|run| run.megabytes);
    let rows = [
        row(["", "seconds", "MB"]),
        vec!["the files".to_owned(), String::new(), format!("{files:.1}")],
        vec!["`tar cvaf X.tlz`".to_owned(), format!("{:.2}", shell.seconds), format!("{:.1}", shell.megabytes)],
        vec![
            "ours, read back and compared".to_owned(),
            cell(time),
            size.map_or_else(String::new, |size| format!("{size:.1}")),
        ],
    ];
    let latency = [
        row(["client's metadata operations, milliseconds", "median", "99 of 100 within"]),
        vec!["nothing beside it".to_owned(), shown(calm.map(|one| one.0)), shown(calm.map(|one| one.1))],
        vec!["while the archive is written".to_owned(), shown(busy.map(|one| one.0)), shown(busy.map(|one| one.1))],
    ];
    let goals = vec![
        Goal::at_least("archive, speed to `tar cvaf X.tlz`", 15.0, "×", time.map(|time| shell.seconds / time.median)),
        Goal::at_most("archive, size to `tar cvaf X.tlz`", 1.35, "×", size.map(|size| size / shell.megabytes)),
        Goal::at_most("archive, memory of mfs-promote", 64.0, "MB", memory),
        Goal::at_most(
            "archive, the client's median latency to that without",
            1.1,
            "×",
            calm.zip(busy).map(|(calm, busy)| busy.0 / calm.0),
        ),
    ];
    let text = format!("{}\n{}{EXPLANATION}", table(&rows), table(&latency));
    Ok(Section { title: "Archive", text, goals, pictures: Vec::new() })
}

struct Taken {
    seconds: f64,
    megabytes: f64,
    /// Of ours alone.
    memory: f64,
}

/// The megabytes of the files, and the shell hooks' own line for them.
fn tar(cluster: &Cluster, input: &Input) -> Result<(f64, Taken)> {
    let folder = cluster.folder().join("tar");
    fs::create_dir(&folder)?;
    let files = input.put(&folder)?;
    let size = files.iter().map(|path| megabytes(path)).sum::<Result<f64>>()?;
    let archive = folder.join("metabak.0.tlz");
    let begin = Instant::now();
    let script = "exec tar cvaf \"$0\" \"$@\" > /dev/null 2>&1";
    let status = Command::new("sh").args(["-c", script]).arg(&archive).args(&files).status()?;
    let seconds = begin.elapsed().as_secs_f64();
    if !status.success() {
        return Err(format!("tar: {status}").into());
    }
    let taken = Taken { seconds, megabytes: megabytes(&archive)?, memory: 0.0 };
    fs::remove_dir_all(folder)?;
    Ok((size, taken))
}

/// Puts the files where an earlier run has set them aside, for the next run to archive. Returns the data folder.
fn set_aside(cluster: &Cluster, input: &Input) -> Result<PathBuf> {
    let data = cluster.data("m1")?;
    let aside = data.join("mfs-promote/1/aside");
    fs::create_dir_all(&aside)?;
    input.put(&aside)?;
    let _ = fs::remove_dir_all(data.join("bak"));
    nix::unistd::sync();
    Ok(data)
}

/// The archive of a run on the serving machine, which finds that the master is serving already.
fn archive(cluster: &Cluster, input: &Input) -> Result<Taken> {
    let data = set_aside(cluster, input)?;
    let mark = cluster.mark();
    cluster.restart_ucarp("m1")?;
    let archived = cluster.wait_for_log_since(mark, "m1", log_lines::ARCHIVED, PATIENCE)?;
    let files = fs::read_dir(data.join("bak"))?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    let megabytes = files.iter().map(|path| megabytes(path)).sum::<Result<f64>>()?;
    Ok(Taken { seconds: step_seconds(&archived.text)?, megabytes, memory: peak_memory(cluster)? })
}

/// The client's latency in milliseconds, median and all but one in a hundred: with nothing beside it, and while
/// mfs-promote on the serving machine archives these files. That run is made by hand: the client keeps its address.
fn latencies(cluster: &Cluster, input: &Input) -> Result<[Option<(f64, f64)>; 2]> {
    let load = cluster.client().keep_writing()?;
    let begin = Moment::now();
    std::thread::sleep(CALM);
    let calm = begin..Moment::now();
    set_aside(cluster, input)?;
    let begin = Moment::now();
    let run = cluster.run("m1", &["mfs-promote", "--interface", "eth0", "--vip", "172.16.0.99"])?;
    let busy = begin..Moment::now();
    if !run.status.success() {
        return Err(String::from_utf8_lossy(&run.stderr).into());
    }
    let [metadata, _] = load.lines()?;
    let of = |span: std::ops::Range<Moment>| {
        let lines = metadata.iter().filter(|line| line.errno.is_none() && span.contains(&line.start));
        let mut times: Vec<f64> = lines.map(|line| line.end.seconds_since(line.start) * 1e3).collect();
        times.sort_by(f64::total_cmp);
        Some((*times.get(times.len() / 2)?, *times.get(times.len() * 99 / 100)?))
    };
    Ok([of(calm), of(busy)])
}

fn megabytes(path: &Path) -> Result<f64> {
    Ok(inputs::float(fs::metadata(path)?.size()) / 1e6)
}

const EXPLANATION: &str = "
The image and the change log of a real master, as a promotion has set them aside; mfs-promote on the serving machine archives
them. Ours is written, flushed, read back and compared byte by byte; tar's is only written. The seconds are those that
mfs-promote logs, and the memory is all that it had until then (VmHWM). The client's latency is taken in one more run.
";
