//! The page that tells what happens in each failure names a test for each: those tests exist.

use std::fs;
use std::path::{Path, PathBuf};

const PAGE: &str = include_str!("../../docs/failures.md");
/// The page must have at least this many cases.
const CASES: usize = 50;

#[test]
fn each_failure_on_the_page_is_proved_by_a_test_that_exists() {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    let sources: Vec<(PathBuf, String)> =
        [tests.join("scenarios"), tests.join("hooks"), tests.join("campaign"), tests.join("../crates")]
            .into_iter()
            .flat_map(|folder| rust_files(&folder))
            .map(|path| (path.clone(), fs::read_to_string(path).expect("a source")))
            .collect();
    let mut rows = Vec::new();
    for line in PAGE.lines() {
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let Some(number) = cells[0].parse::<usize>().ok() else { continue };
        let [_, what, seen, to_do, proof] = cells[..] else { panic!("a row has five cells: {line}") };
        assert!([what, seen, to_do].iter().all(|cell| !cell.is_empty()), "{line}");
        let named: Vec<&str> = proof.split('`').skip(1).step_by(2).filter(|name| name.contains("::")).collect();
        assert!(!named.is_empty() || proof.starts_with("no test: "), "a test, or why there is none: {line}");
        for name in named {
            let (module, function) = name.split_once("::").expect("MODULE::TEST");
            let test = format!("fn {function}(");
            let of_module = |path: &Path| {
                path.components().any(|part| Path::new(part.as_os_str()).file_stem() == Some(module.as_ref()))
            };
            let exists = sources.iter().any(|(path, text)| of_module(path) && text.contains(&test));
            assert!(exists, "row {number} of docs/failures.md names {name}, which does not exist");
        }
        rows.push(number);
    }
    assert_eq!(rows, (1..=CASES).collect::<Vec<_>>());
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .flat_map(|path| if path.is_dir() { rust_files(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|kind| kind == "rs"))
        .collect()
}
