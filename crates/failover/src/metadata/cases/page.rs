//! The page about the cases.

use std::fmt::Write as _;

use super::case::Case;
use super::judge::Finding;

const INTRODUCTION: &str = include_str!("introduction.md");

/// The whole page; `findings` are in the order of the cases.
pub(super) fn render(parts: &[(&str, &[Case])], findings: &[Finding]) -> String {
    let mut page = INTRODUCTION.to_owned();
    let mut findings = findings.iter();
    for (title, cases) in parts {
        write!(page, "\n## {title}\n\n| case | files | truth | stock mfsmaster | mfs-promote |\n").unwrap();
        page.push_str("|---|---|---|---|---|\n");
        for (case, finding) in cases.iter().zip(&mut findings) {
            let Finding { truth, stock, ours, .. } = finding;
            let row = [case.name, case.what, truth, stock, ours].map(|cell| cell.replace('|', "\\|"));
            writeln!(page, "| {} |", row.join(" | ")).unwrap();
        }
    }
    page
}
