//! The commands of the book are run as they stand, in the order of its pages, and what it shows of them is what they print.
//!
//! Comments in the pages, which no reader sees, say what is done with the block behind them:
//!
//! | comment | |
//! |---|---|
//! | `on m2`, `on m2, exit 1` | the block is run there as one script, and ends with this status (0 by default) |
//! | `shows`, `shows the last 3 lines` | the block is what was printed; numbers and times may be others. `UPDATE=1` writes it |
//! | `tried in PATH` | each line of the block is in that file, which is a test |
//! | `like a command of PAGE` | each line of the block is run on that page, with other numbers and perhaps more options |
//! | `a file` | these are no commands |
//! | `lab: …` | something happens to the machines: see [`happen`]; there is no block |
//!
//! A block of commands without such a comment is an error, in every page that is written by hand.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lab::{Cluster, LAST_RETRY, Result, log_lines};

use crate::SOON;

/// The pages whose commands are run, in this order.
const STORIES: [&str; 2] = ["howto.md", "operations.md"];
/// The pages in which every block of commands must be tried somewhere.
const STRICT: [&str; 11] = [
    "howto.md",
    "operations.md",
    "troubleshooting.md",
    "limits.md",
    "alternatives.md",
    "configuration.md",
    "overview.md",
    "safety.md",
    "moosefs.md",
    "security.md",
    "monitoring.md",
];

/// A comment and the lines of the block behind it, if one follows.
#[derive(Debug)]
struct Part {
    comment: String,
    block: Range<usize>,
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

fn lines_of(page: &str) -> Vec<String> {
    let path = docs().join(page);
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.lines().map(str::to_owned).collect()
}

fn is_code(line: &str) -> bool {
    line.starts_with("    ")
}

/// The block that begins at or after `from` with nothing but empty lines before it.
fn block_at(lines: &[String], from: usize) -> Range<usize> {
    let begin = (from..lines.len()).find(|at| is_code(&lines[*at]) || !lines[*at].trim().is_empty());
    let begin = begin.unwrap_or(lines.len());
    // Empty lines are part of it where more of it follows.
    let part = lines[begin..].iter().take_while(|line| is_code(line) || line.is_empty());
    let length = part.enumerate().filter(|(_, line)| is_code(line)).last().map_or(0, |(at, _)| at + 1);
    begin..begin + length
}

fn parts(lines: &[String]) -> Vec<Part> {
    let comment = |line: &str| Some(line.strip_prefix("<!-- ")?.strip_suffix(" -->")?.to_owned());
    let found = lines.iter().enumerate().filter_map(|(at, line)| Some((at, comment(line)?)));
    found.map(|(at, comment)| Part { comment, block: block_at(lines, at + 1) }).collect()
}

fn code(lines: &[String], block: &Range<usize>) -> Vec<String> {
    lines[block.clone()].iter().map(|line| line.get(4..).unwrap_or_default().trim_end().to_owned()).collect()
}

/// Text whose numbers, units and repetitions do not count.
fn shape(text: &[String]) -> Vec<String> {
    let word = |word: &str| {
        if word.contains(|c: char| c.is_ascii_digit()) {
            return "0".to_owned();
        }
        if matches!(word.trim_end_matches([',', ')', ';']), "ms" | "s" | "min" | "h" | "B" | "KiB" | "MiB" | "GiB") {
            return "unit".to_owned();
        }
        word.to_owned()
    };
    let line = |line: &String| {
        let mut words: Vec<_> = line.split_whitespace().map(word).collect();
        words.dedup();
        words.join(" ")
    };
    let mut shape: Vec<_> = text.iter().map(line).filter(|line| !line.is_empty()).collect();
    shape.dedup();
    shape
}

/// What can happen in a page.
fn happen(cluster: &Cluster, what: &str) -> Result<()> {
    match what {
        "m2 serves" => {
            let recorded = || cluster.must("m2", &["mfs-promote", "--status"]).ok();
            let served = || recorded().filter(|text| text.contains(log_lines::STATUS_SERVING)).map(drop);
            cluster.expect("m2 to serve, and to have noted it", SOON, served)
        }
        "m1 is in step" | "m3 is in step" => in_step(cluster, &what[..2]),
        "m1 loses its power" => cluster.power_off("m1").map(drop),
        "m1 has its power back" => cluster.power_on("m1").map(drop),
        "ucarp ends on m3" => cluster.stop_ucarp("m3").map(drop),
        "ucarp ends on m3, and its master" => {
            let mark = cluster.mark();
            cluster.stop_ucarp("m3")?;
            cluster.wait_for_log_since(mark, "m3", log_lines::DEMOTED, SOON).map(drop)
        }
        "ucarp starts on m3" => cluster.start_ucarp("m3"),
        "ucarp starts on m3, and m3 serves" => {
            let mark = cluster.mark();
            cluster.start_ucarp("m3")?;
            cluster.wait_for_log_since(mark, "m3", log_lines::SERVING, SOON).map(drop)
        }
        "a hole in the copy of m3, and m1 and m2 lose their power" => lose_all_but_a_hole(cluster),
        other => panic!("unknown event: {other}"),
    }
}

/// As the machine sees it, while a client makes changes: without changes it cannot be certain.
fn in_step(cluster: &Cluster, machine: &str) -> Result<()> {
    let check = || {
        cluster.must("c1", &["mktemp", "/mnt/mfs/XXXXXX"]).ok()?;
        let run = cluster.run(machine, &["mfs-promote", "--check", "--json"]).ok()?;
        serde_json::from_slice::<serde_json::Value>(&run.stdout).ok()
    };
    let well = || {
        let check = check().filter(|check| check["lag"] == 0)?;
        let mut plans = check["findings"].as_array()?.iter().filter(|finding| finding["name"] == "plan").peekable();
        plans.peek()?;
        plans.all(|plan| plan["level"] == "ok").then_some(())
    };
    cluster.expect(&format!("{machine} to be in step"), SOON, well)
}

/// m3 is left, and its copy has a hole; the missing part is kept, to be found later.
fn lose_all_but_a_hole(cluster: &Cluster) -> Result<()> {
    cluster.must("c1", &["sh", "-c", "for i in $(seq 200); do touch /mnt/mfs/file$i; done"])?;
    in_step(cluster, "m3")?;
    let hole = "cd /var/lib/mfs && mfsmetalogger stop && mkdir /root/found && \
                cp changelog_ml.0.mfs /root/found/changelog_ml.60.mfs && n=$(wc -l < changelog_ml.0.mfs) && \
                sed -i \"$((n / 2)),$((n / 2 + 9))d\" changelog_ml.0.mfs";
    cluster.must("m3", &["sh", "-c", hole])?;
    let mark = cluster.mark();
    cluster.power_off("m1")?;
    cluster.power_off("m2")?;
    cluster.wait_for_log_since(mark, "m3", log_lines::UCARP_STOPPED, SOON)?;
    cluster.wait_for_log_since(mark, "m3", log_lines::DEMOTION_ENDED, SOON).map(drop)
}

/// Runs a block, and returns what it printed.
fn run(cluster: &Cluster, place: &str, script: &[String]) -> Result<Vec<String>> {
    let (machine, wanted) = place.split_once(", exit ").unwrap_or((place, "0"));
    let script = script.join("\n");
    eprintln!("{machine}$ {script}");
    let all = format!("exec 2>&1\nset -e\n{script}");
    let output = cluster.run(machine, &["bash", "-c", &all])?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    eprintln!("{text}");
    assert_eq!(output.status.code().map(|code| code.to_string()).as_deref(), Some(wanted), "{script}\n{text}");
    Ok(text.trim_end().lines().map(|line| line.trim_end().to_owned()).collect())
}

/// The part of what was printed that the page shows.
fn shown<'a>(comment: &str, printed: &'a [String]) -> &'a [String] {
    let last = comment.strip_prefix("shows the last ").and_then(|rest| rest.strip_suffix(" lines"));
    let number = last.map_or(printed.len(), |number| number.parse().expect("a number of lines"));
    &printed[printed.len().saturating_sub(number)..]
}

/// Runs a page from its first line to its last. Returns it as it should be.
fn tell(cluster: &Cluster, page: &str) -> Result<Vec<String>> {
    let lines = lines_of(page);
    let (mut now, mut moved, mut printed) = (lines.clone(), 0, Vec::new());
    for Part { comment, block } in parts(&lines) {
        if let Some(what) = comment.strip_prefix("lab: ") {
            eprintln!("-- {what}");
            happen(cluster, what)?;
        } else if let Some(place) = comment.strip_prefix("on ") {
            printed = run(cluster, place, &code(&lines, &block))?;
        } else if comment.starts_with("shows") {
            let shown = shown(&comment, &printed);
            let (had, got) = (shape(&code(&lines, &block)), shape(shown));
            if std::env::var_os("UPDATE").is_some() {
                let new: Vec<_> = shown.iter().map(|line| format!("    {line}").trim_end().to_owned()).collect();
                let at = |line: usize| line.checked_add_signed(moved).expect("a line of the page");
                let length = isize::try_from(new.len()).expect("a page");
                let (begin, end) = (at(block.start), at(block.end));
                now.splice(begin..end, new);
                moved += length - isize::try_from(block.len()).expect("a page");
            } else {
                assert_eq!(had, got, "docs/{page} shows something else; UPDATE=1 writes it");
            }
        }
    }
    Ok(now)
}

#[test]
fn the_commands_of_the_book_do_what_it_says() -> Result<()> {
    let cluster = Cluster::build()
        .masters(3)
        .setting("mfsmetalogger", "MASTER_RECONNECTION_DELAY", "1")
        .setting("mfschunkserver", "MASTER_RECONNECTION_DELAY", "1")
        .start()?;
    for machine in ["m1", "m2", "m3"] {
        // As the README says; the machines have the init scripts of Debian's packages.
        cluster.must(machine, &["update-rc.d", "moosefs-master", "disable"])?;
    }
    let load = cluster.client().keep_writing()?;
    load.wait_for_progress(LAST_RETRY)?;
    load.stop()?;
    assert_eq!(load.errors()?, []);
    for machine in ["m2", "m3"] {
        cluster.wait_for_log(machine, log_lines::DEMOTION_ENDED, SOON)?;
        in_step(&cluster, machine)?;
    }
    for page in STORIES {
        let now = tell(&cluster, page)?;
        if std::env::var_os("UPDATE").is_some() {
            fs::write(docs().join(page), now.join("\n") + "\n").expect("the page");
        }
    }
    Ok(())
}

#[test]
fn every_command_of_the_book_is_tried() {
    for page in STRICT {
        let lines = lines_of(page);
        let parts = parts(&lines);
        let mut fenced = false;
        let mut at = 0;
        while at < lines.len() {
            fenced ^= lines[at].starts_with("```");
            let begins = !fenced && is_code(&lines[at]) && (at == 0 || lines[at - 1].trim().is_empty());
            if !begins {
                at += 1;
                continue;
            }
            let block = block_at(&lines, at);
            let text = code(&lines, &block);
            let part = parts.iter().find(|part| part.block == block);
            let is_a_file = text.iter().all(|line| line.is_empty() || line.starts_with('#') || line.contains(" = "));
            assert!(part.is_some() || is_a_file, "docs/{page}:{}: who tries this? {text:?}", at + 1);
            if let Some(part) = part {
                check(page, &part.comment, &text);
            }
            at = block.end.max(at + 1);
        }
    }
}

#[test]
fn what_the_readme_shows_is_what_the_book_shows() {
    let readme = lines_of("../README.md");
    let shown = parts(&readme).into_iter().filter(|part| part.comment == "shown in docs/operations.md");
    let shown: Vec<_> = shown.map(|part| code(&readme, &part.block).join("\n")).collect();
    let lines = lines_of("operations.md");
    let recorded: Vec<_> = parts(&lines).iter().map(|part| code(&lines, &part.block).join("\n")).collect();
    assert!(!shown.is_empty() && shown.iter().all(|text| recorded.contains(text)), "copy it from the page: {shown:#?}");
}

/// A comment that a reader of the page could not keep.
fn check(page: &str, comment: &str, text: &[String]) {
    if let Some(path) = comment.strip_prefix("tried in ") {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
        let source = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for line in text {
            let tried = source.lines().any(|test| holds(&words_of(test, &source), line));
            assert!(tried, "docs/{page}: {line:?} is not in {}", path.display());
        }
    } else if let Some(other) = comment.strip_prefix("like a command of ") {
        let wordless = |line: &str| {
            let words = line.split_whitespace().filter(|word| !word.contains(|c: char| c.is_ascii_digit()));
            words.map(str::to_owned).collect::<Vec<_>>()
        };
        let lines = lines_of(other);
        for line in text {
            let line = wordless(line).join(" ");
            assert!(lines.iter().any(|run| holds(&wordless(run), &line)), "docs/{page}: {line:?} is not in {other}");
        }
    } else {
        let run = comment == "a file" || comment.starts_with("on ") && STORIES.contains(&page);
        assert!(run || comment.starts_with("shows"), "docs/{page}: unknown comment: {comment}");
    }
}

/// The words of a line of a test, which names those of a command one by one, and units by constants.
fn words_of(line: &str, source: &str) -> Vec<String> {
    let plain = line.replace(['"', ',', '&', '[', ']', '\'', ')', '('], " ");
    let constant = |word: &str| {
        let value = source.split_once(&format!("const {word}: &str = \""))?.1.split('"').next()?;
        Some(value.trim_end_matches(".service").to_owned())
    };
    plain.split_whitespace().map(|word| constant(word).unwrap_or_else(|| word.to_owned())).collect()
}

/// Whether the words of a command are there in their order, with others in between.
fn holds(words: &[String], command: &str) -> bool {
    let mut words = words.iter();
    command.split_whitespace().all(|wanted| words.any(|word| word == wanted))
}
