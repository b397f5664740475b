//! Sets of files that crashes, restarts and former masters leave behind: what stock `mfsmaster` makes of each, and
//! what our plan makes of it. The page `docs/metadata-cases.md` is the result of these runs; `UPDATE=1` writes it.
//!
//! Needs mfsmaster 3.0.117, the user `mfs` and root. Without them these tests fail; they are not skipped.

mod case;
mod history;
mod judge;
mod master;
mod page;

mod branches;
mod images;
mod logs;
mod odd;
mod real_sets;
mod torn;

use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use case::Case;
use judge::Finding;

/// What the rows of one part of the page have in common, and the rows.
const PARTS: &[(&str, &[Case])] = &[
    ("Torn, overwritten and damaged lines", torn::CASES),
    ("Change logs that are missing, overlap or are out of order", logs::CASES),
    ("Images", images::CASES),
    ("Two histories in one folder", branches::CASES),
    ("Names that are no files, and files that are no metadata", odd::CASES),
];

#[test]
fn every_case_and_the_page_about_them() {
    let cases: Vec<&Case> = PARTS.iter().flat_map(|(_, cases)| *cases).collect();
    let findings = judge_all(&cases);
    let problems: Vec<&str> = findings.iter().flat_map(|f| &f.problems).map(String::as_str).collect();
    assert!(problems.is_empty(), "{} of {} cases:\n\n{}", problems.len(), cases.len(), problems.join("\n\n"));

    let text = page::render(PARTS, &findings);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/metadata-cases.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let changed = written.lines().zip(text.lines()).find(|(old, new)| old != new);
    assert!(written == text, "docs/metadata-cases.md differs from the results; UPDATE=1 writes it: {changed:#?}");
}

/// The findings in the order of the cases; a few at a time, for most of each is waiting for `mfsmaster`.
fn judge_all(cases: &[&Case]) -> Vec<Finding> {
    let next = AtomicUsize::new(0);
    let found: Vec<Mutex<Option<Finding>>> = cases.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                // From the end: the case that waits for `mfsmaster` to hang is there.
                while let Some(index) = cases.len().checked_sub(1 + next.fetch_add(1, Ordering::Relaxed)) {
                    *found[index].lock().unwrap() = Some(judge::judge(cases[index]));
                }
            });
        }
    });
    found.into_iter().map(|finding| finding.into_inner().unwrap().expect("judged")).collect()
}
