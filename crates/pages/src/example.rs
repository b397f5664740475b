//! The commented example of `mfspromote.cfg`: every key of the reference, with its meaning and its default.

use std::fmt::Write as _;

use crate::Error;
use crate::markdown;

const SECTION: &str = "## Keys of mfspromote.cfg";
const WIDTH: usize = 80;

/// The example. Every line of it is a comment, so it changes nothing until one is uncommented.
pub(crate) fn example(reference: &str) -> Result<String, Error> {
    let section = reference.split_once(SECTION).map(|(_, rest)| rest).ok_or(Error::NoTable(SECTION))?;
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| `"));
    let mut out = String::from(
        "# Configuration of mfs-promote, vip-up and vip-down: mfspromote.cfg(5).\n\
         # To be copied to /etc/mfs/mfspromote.cfg, if anything is to be other than here.\n\
         # mfs-promote --check-config shows what is in force.\n",
    );
    for row in rows {
        let [key, default, meaning] = markdown::cells(row)[..] else { return Err(Error::NoTable(SECTION)) };
        let key = key.replace('`', "");
        // A value as it is written, or words about one.
        let literal = default.strip_prefix('`').and_then(|rest| rest.strip_suffix('`'));
        let literal = literal.filter(|value| !value.contains('`'));
        let mut text = meaning.replace('`', "");
        if literal.is_none() && default != "none" {
            let _ = write!(text, ". Default: {}", default.replace('`', ""));
        }
        out.push('\n');
        comment(&text, &mut out);
        let _ = writeln!(out, "{}", format!("# {key} = {}", literal.unwrap_or_default()).trim_end());
    }
    if out.contains("\n# ") { Ok(out) } else { Err(Error::NoTable(SECTION)) }
}

/// Words as lines of comment.
fn comment(text: &str, out: &mut String) {
    let mut line = String::from("#");
    for word in text.split_whitespace() {
        if line.len() + 1 + word.len() > WIDTH {
            let _ = writeln!(out, "{line}");
            line.truncate(1);
        }
        line.push(' ');
        line.push_str(word);
    }
    let _ = writeln!(out, "{line}");
}
