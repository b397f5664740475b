//! The client's load, run inside the client machine.
//!
//! `workload run MOUNT LOGS RATE`: two loops until stdin ends, each operation in the log once it is answered.
//! `workload check MOUNT LOGS`: looks for everything that was acknowledged; prints `lost START END NAME …` lines, with the moments of
//! the operation as in its log, and `checked N`.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lab::Moment;
use lab::oplog::{Line, METADATA_FOLDER, METADATA_LOG, Op, WRITES_FOLDER, WRITES_LOG, content, parse_log};

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    let result = match words[..] {
        ["run", mount, logs, rate] => run(Path::new(mount), Path::new(logs), rate),
        ["check", mount, logs] => check(Path::new(mount), Path::new(logs)),
        _ => Err("usage: workload run MOUNT LOGS RATE | workload check MOUNT LOGS".into()),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("workload: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Both loops, until our standard input is closed.
fn run(mount: &Path, logs: &Path, rate: &str) -> Result<(), Failure> {
    let pause = Duration::from_secs(1) / rate.parse::<u32>()?.max(1);
    let stop = AtomicBool::new(false);
    let mut metadata = Loop::new(mount, &logs.join(METADATA_LOG), pause, &stop)?;
    let mut writes = Loop::new(mount, &logs.join(WRITES_LOG), pause, &stop)?;
    thread::scope(|scope| {
        let loops = [scope.spawn(move || metadata.names()), scope.spawn(move || writes.data())];
        let ended = io::copy(&mut io::stdin().lock(), &mut io::sink());
        stop.store(true, Ordering::Relaxed);
        for one in loops {
            one.join().map_err(|_| "a loop panicked")??;
        }
        ended.map(drop).map_err(Failure::from)
    })
}

/// One of the two loops.
struct Loop<'a> {
    mount: &'a Path,
    log: File,
    pause: Duration,
    next: Instant,
    stop: &'a AtomicBool,
}

impl<'a> Loop<'a> {
    fn new(mount: &'a Path, log: &Path, pause: Duration, stop: &'a AtomicBool) -> io::Result<Self> {
        let log = OpenOptions::new().create(true).append(true).open(log)?;
        Ok(Self { mount, log, pause, next: Instant::now(), stop })
    }

    /// Folders of fifty files, each created and then renamed.
    fn names(&mut self) -> Result<(), Failure> {
        let mut folder = METADATA_FOLDER.to_owned();
        self.ask(Op::Mkdir(folder.clone()))?;
        for number in 0_u64.. {
            if number % 50 == 0 {
                folder = format!("{METADATA_FOLDER}/{}", number / 50);
                self.ask(Op::Mkdir(folder.clone()))?;
            }
            let (first, second) = (format!("{folder}/f{number}"), format!("{folder}/g{number}"));
            if self.ask(Op::Create(first.clone()))? {
                self.ask(Op::Rename(first, second))?;
            }
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Folders of a thousand files with content.
    fn data(&mut self) -> Result<(), Failure> {
        self.ask(Op::Mkdir(WRITES_FOLDER.to_owned()))?;
        for number in 0_u64.. {
            let folder = format!("{WRITES_FOLDER}/{}", number / 1000);
            if number % 1000 == 0 {
                self.ask(Op::Mkdir(folder.clone()))?;
            }
            self.ask(Op::Write(format!("{folder}/w{number}")))?;
            if self.stop.load(Ordering::Relaxed) {
                break;
            }
        }
        Ok(())
    }

    /// Does one operation at its time and writes its line. Tells whether it was acknowledged.
    fn ask(&mut self, op: Op) -> Result<bool, Failure> {
        thread::sleep(self.next.saturating_duration_since(Instant::now()));
        self.next = Instant::now().max(self.next + self.pause);
        let start = Moment::now();
        let errno = perform(self.mount, &op).err().map(|error| error.raw_os_error().unwrap_or(-1));
        let line = Line { start, end: Moment::now(), op, errno };
        self.log.write_all(format!("{line}\n").as_bytes())?;
        Ok(errno.is_none())
    }
}

/// Names are never used twice, so a name that "exists already" is our own request, repeated by the client after a lost answer.
fn perform(mount: &Path, op: &Op) -> io::Result<()> {
    match op {
        Op::Mkdir(name) => existing(fs::create_dir(mount.join(name)), ()),
        Op::Create(name) => existing(File::create_new(mount.join(name)).map(drop), ()),
        Op::Rename(from, to) => match fs::rename(mount.join(from), mount.join(to)) {
            Err(error) if error.kind() == ErrorKind::NotFound && mount.join(to).exists() => Ok(()),
            other => other,
        },
        Op::Write(name) => {
            let path = mount.join(name);
            let mut file = match File::create_new(&path) {
                Err(error) if error.kind() == ErrorKind::AlreadyExists => OpenOptions::new().write(true).open(&path),
                other => other,
            }?;
            file.write_all(&content(name))?;
            file.sync_all()?;
            Ok(nix::unistd::close(file)?)
        }
    }
}

fn existing<T>(result: io::Result<T>, value: T) -> io::Result<T> {
    match result {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(value),
        other => other,
    }
}

/// What must be there: one of these names, with its content or with any.
struct Wanted {
    names: Vec<String>,
    written: bool,
    start: Moment,
    end: Moment,
}

fn check(mount: &Path, logs: &Path) -> Result<(), Failure> {
    let mut wanted = BTreeMap::new();
    for log in [METADATA_LOG, WRITES_LOG] {
        for line in parse_log(&fs::read_to_string(logs.join(log))?)? {
            demand(&mut wanted, line);
        }
    }
    let wanted: Vec<Wanted> = wanted.into_values().collect();
    let share = wanted.len().div_ceil(4).max(1);
    let lost = thread::scope(|scope| {
        let look = |part| move || missing_of(mount, part);
        let parts: Vec<_> = wanted.chunks(share).map(|part| scope.spawn(look(part))).collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap_or_else(|_| vec!["0 0 - a checker panicked".into()]))
            .collect::<Vec<_>>()
    });
    for line in lost {
        println!("lost {line}");
    }
    println!("checked {}", wanted.len());
    Ok(())
}

/// Adds what a line of the log promises.
fn demand(wanted: &mut BTreeMap<String, Wanted>, line: Line) {
    if line.errno.is_some() {
        return;
    }
    let (key, names, written) = match line.op {
        Op::Mkdir(name) => (name.clone(), vec![name], false),
        // A rename may have been done although its answer never came.
        Op::Create(name) => (name.clone(), vec![name.clone(), name.replace("/f", "/g")], false),
        Op::Rename(from, to) => (from, vec![to], false),
        Op::Write(name) => (name.clone(), vec![name], true),
    };
    wanted.insert(key, Wanted { names, written, start: line.start, end: line.end });
}

fn missing_of(mount: &Path, wanted: &[Wanted]) -> Vec<String> {
    let complaints = |one: &Wanted| {
        let (name, text) = (one.names.first()?, complaint(mount, one)?);
        Some(format!("{} {} {name} {text}", one.start.0, one.end.0))
    };
    wanted.iter().filter_map(complaints).collect()
}

fn complaint(mount: &Path, wanted: &Wanted) -> Option<String> {
    let paths: Vec<PathBuf> = wanted.names.iter().map(|name| mount.join(name)).collect();
    let name = wanted.names.join(" or ");
    if !wanted.written {
        let seen: Vec<_> = paths.iter().map(fs::symlink_metadata).collect();
        if seen.iter().any(Result::is_ok) {
            return None;
        }
        return seen.into_iter().find_map(Result::err).map(|error| format!("{name}: {error}"));
    }
    let (mut found, expected) = (Vec::new(), content(wanted.names.first()?));
    match File::open(paths.first()?).and_then(|mut file| file.read_to_end(&mut found)) {
        Err(error) => Some(format!("{name}: {error}")),
        Ok(_) if found == expected => None,
        Ok(length) => {
            let same = found.iter().zip(&expected).take_while(|(found, expected)| found == expected).count();
            let rest = if found[same..].iter().all(|byte| *byte == 0) { "zeros" } else { "other content" };
            Some(format!("{name}: {length} of {} bytes, from byte {same} on {rest}", expected.len()))
        }
    }
}
