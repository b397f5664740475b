//! `mfsmaster.cfg`, read by the real `mfsmaster` and by these programs: they name the same data folder, whatever the line.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lab::random::{self, Rng};
use lab::{Result, built_programs};

/// How many lines are compared.
const LINES: usize = 250;
const KEYS: &[&str] = &[
    "DATA_PATH",
    " DATA_PATH",
    "\tDATA_PATH \t",
    "DATA PATH",
    "#DATA_PATH",
    " #DATA_PATH",
    "DATA_PATH\x01",
    "data_path",
    "\u{feff}DATA_PATH",
    "",
];
const SIGNS: &[&str] = &["=", " = ", "\t=\t ", " ", "==", " \x0b= "];
const PARTS: &[&str] = &[
    "a", "b", "c", " ", " ", "\t", "#", "# x", "\"", "'", "=", "\\", ";", "\r", "\0", "\x01", "\x0c", "\x7f", "ü",
    "\r\t", "\t#", " \t ",
];

/// One line, often one that is good.
fn line(rng: &mut Rng) -> String {
    let usual = |rng: &mut Rng, parts: &[&'static str]| if rng.bool() { parts[0] } else { random::pick(rng, parts) };
    let (key, sign) = (usual(rng, KEYS), usual(rng, SIGNS));
    let parts: String = (0..rng.usize(..6)).map(|_| random::pick(rng, PARTS)).collect();
    format!("{key}{sign}/nowhere/{parts}")
}

/// The folder that the real `mfsmaster` cannot enter.
fn theirs(file: &Path) -> String {
    let output = Command::new("/usr/sbin/mfsmaster").arg("-c").arg(file).arg("test").output().expect("mfsmaster runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    let path = text.split("can't set working directory to ").nth(1).and_then(|rest| rest.split('\n').next());
    path.unwrap_or_else(|| panic!("{text:?} for {:?}", fs::read(file))).to_owned()
}

/// What `--check-config` shows, or the error.
fn ours(program: &Path, file: &Path) -> std::result::Result<String, String> {
    let output =
        Command::new(program).args(["--check-config", "--config"]).arg(file).output().expect("mfs-promote runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let column = |name: &str| text.lines().next().and_then(|heading| heading.find(name));
    let row = text.lines().find(|line| line.trim_start().starts_with("DATA_PATH "));
    let (Some(row), Some(from), Some(to)) = (row, column("value"), column("from")) else {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned());
    };
    Ok(row.chars().skip(from).take(to - from).collect::<String>().trim_end().to_owned())
}

#[test]
fn the_real_master_and_these_programs_read_the_same_folder() -> Result<()> {
    let (dir, mut rng) = (tempfile::tempdir().expect("a folder"), random::rng());
    let program = built_programs()?.join("mfs-promote");
    let file = |name: &str| -> PathBuf { dir.path().join(name) };
    let (master, own) = (file("mfsmaster.cfg"), file("mfspromote.cfg"));
    let named = |key: &str| format!("{key} = {}\n", master.display());
    fs::write(&own, named("MASTER_CFG") + &named("METALOGGER_CFG")).expect("a file");
    let long = |length: usize| format!("DATA_PATH = /nowhere/{}", "x".repeat(length - 21));
    let fixed = ["DATA_PATH = /nowhere/a\t# ssd".to_owned(), "DATA_PATH=/nowhere/a # b\r".to_owned(), long(997)];
    let random = std::iter::repeat_with(|| line(&mut rng)).take(LINES);
    let mut changed = 0;
    for line in fixed.into_iter().chain(random) {
        let text = format!("WORKING_USER = #0\nWORKING_GROUP =\nDATA_PATH = /nowhere/before\n{line}\nX = 1\n");
        fs::write(&master, &text).expect("a file");
        let wanted = theirs(&master);
        changed += usize::from(wanted != "/nowhere/before");
        let read = ours(&program, &own);
        if wanted.starts_with('/') {
            assert_eq!(read, Ok(wanted), "{line:?}");
        } else {
            // From which folder the daemon would go there is not known.
            let refused = format!("DATA_PATH = {wanted:?} is not valid");
            assert!(read.as_ref().is_err_and(|error| error.contains(&refused)), "{line:?}: {read:?}");
        }
    }
    assert!(changed > LINES / 8, "only {changed} lines count");

    // What a release before 4 makes two lines of is refused.
    fs::write(&master, format!("WORKING_USER = #0\n#{}DATA_PATH = /nowhere/after\n", "x".repeat(997))).expect("a file");
    assert_eq!(theirs(&master), "/nowhere/after");
    assert!(ours(&program, &own).is_err_and(|error| error.contains("line 2 is longer than 997 bytes")));
    Ok(())
}
