//! The book agrees with itself and with the programs: every page is in the summary, every link leads somewhere, and every
//! option that a page names exists.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// README.md and the pages of the book.
fn pages() -> Vec<PathBuf> {
    let mut pages: Vec<_> = fs::read_dir(root().join("docs"))
        .expect("docs")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    pages.push(root().join("README.md"));
    pages.sort();
    pages
}

/// The targets of Markdown links outside code.
fn links(text: &str) -> Vec<String> {
    let prose: String = text.split('`').step_by(2).collect();
    let targets = prose.split("](").skip(1).filter_map(|rest| rest.split_once(')'));
    targets.map(|(target, _)| target.to_owned()).collect()
}

/// A heading as forges and mdBook name it.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn every_page_is_in_the_summary_and_the_summary_has_no_other() {
    let summary = root().join("docs/SUMMARY.md");
    let listed: BTreeSet<_> = links(&read(&summary)).into_iter().collect();
    let there = pages().into_iter().filter(|path| path.parent() == summary.parent() && *path != summary);
    let there: BTreeSet<_> = there.map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(listed, there);
}

#[test]
fn every_link_leads_somewhere() {
    for page in pages() {
        for link in links(&read(&page)) {
            if link.starts_with("https://") {
                continue;
            }
            let (file, heading) = link.split_once('#').unwrap_or((&link, ""));
            let target = if file.is_empty() { page.clone() } else { page.with_file_name(file) };
            let target = if file.contains('/') { page.parent().unwrap().join(file) } else { target };
            assert!(target.exists(), "{}: {link}", page.display());
            // In the book there is nothing but docs/.
            let inside = page.parent() != Some(&root().join("docs")) || !file.starts_with("..");
            assert!(inside, "{}: {link} leads out of the book", page.display());
            if !heading.is_empty() {
                let text = read(&target);
                let mut headings = text.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(headings.any(|found| found == heading), "{}: {link}", page.display());
            }
        }
    }
}

/// Words between back quotes, and the lines of indented blocks.
fn code(text: &str) -> Vec<&str> {
    let spans = text.lines().flat_map(|line| line.split('`').skip(1).step_by(2));
    spans.chain(text.lines().filter_map(|line| line.strip_prefix("    "))).map(str::trim).collect()
}

#[test]
fn every_option_named_exists() {
    let program = Path::new(env!("CARGO_BIN_EXE_pages")).with_file_name("mfs-promote");
    let help = |args: &[&str]| {
        let output = Command::new(&program).args(args).output();
        let output =
            output.unwrap_or_else(|e| panic!("{}: {e}; run cargo build --workspace --bins", program.display()));
        String::from_utf8(output.stdout).expect("text")
    };
    let help = help(&["--help"]) + &help(&["--init", "--help"]);
    let known: BTreeSet<_> = help.split([' ', '\n', ',']).filter(|word| word.starts_with("--")).collect();
    for page in pages() {
        let text = read(&page);
        for line in code(&text).into_iter().filter(|code| code.starts_with("mfs-promote ")) {
            let command = line.split([';', '|', '&', '#', '>']).next().unwrap_or_default();
            let unknown: Vec<_> =
                command.split(' ').filter(|word| word.starts_with("--") && !known.contains(word)).collect();
            assert!(unknown.is_empty(), "{}: {line}: {unknown:?}", page.display());
        }
    }
}
