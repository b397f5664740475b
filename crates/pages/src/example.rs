//! The commented example of `mfspromote.cfg`: every key of the reference, with its meaning and its default.

use std::fmt::Write as _;

use crate::Error;
use crate::markdown;

const SECTION: &str = "Keys of mfspromote.cfg";
const WIDTH: usize = 80;

/// The example. Every line of it is a comment, so it changes nothing until one is uncommented.
pub(crate) fn example(reference: &str) -> Result<String, Error> {
    let rows = markdown::table(reference, SECTION);
    if rows.is_empty() {
        return Err(Error::NoTable(SECTION));
    }
    let mut out = String::from(
        "# Configuration of mfs-promote, vip-up and vip-down: mfspromote.cfg(5).\n\
         # Copy it to /etc/mfs/mfspromote.cfg and uncomment what you want to change.\n\
         # mfs-promote --check-config shows the settings in force.\n",
    );
    for row in rows {
        let [key, default, meaning] = &row[..] else { return Err(Error::NoTable(SECTION)) };
        let mut text = meaning.words.clone();
        if !default.is_code && default.words != "none" {
            let _ = write!(text, ". Default: {}", default.words);
        }
        out.push('\n');
        comment(&text, &mut out);
        let value = if default.is_code { default.words.as_str() } else { "" };
        let _ = writeln!(out, "{}", format!("# {} = {value}", key.words).trim_end());
    }
    Ok(out)
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
