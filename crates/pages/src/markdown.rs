//! The little Markdown that our texts use, as roff for `man`: headings of two signs, paragraphs, tables, indented blocks,
//! lists, code, emphasis and links (of which only the words stay).

use std::fmt::Write as _;
use std::iter::Peekable;
use std::str::Lines;

/// The page of section 5, from the reference.
pub(crate) fn configuration_page(reference: &str) -> String {
    let source = concat!("moosefs-ucarp ", env!("CARGO_PKG_VERSION"));
    let text = reference.split_once('\n').map_or(reference, |(_title, rest)| rest);
    format!(
        ".TH mfspromote.cfg 5 \"\" \"{source}\" \"MooseFS failover\"\n\
         .SH NAME\nmfspromote.cfg \\- configuration of mfs\\-promote, vip\\-up and vip\\-down\n.SH DESCRIPTION\n{}\
         .SH SEE ALSO\n.BR mfs\\-promote (8),\n.BR mfsmaster.cfg (5),\n.BR mfsmetalogger.cfg (5)\n",
        to_roff(text)
    )
}

/// A text as the body of a page.
pub(crate) fn to_roff(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if let Some(heading) = line.strip_prefix("## ") {
            let _ = writeln!(out, ".SH {}", inline(&heading.to_uppercase()));
        } else if line.starts_with('|') {
            table(line, &mut lines, &mut out);
        } else if let Some(first) = line.strip_prefix("    ") {
            let _ = writeln!(out, ".PP\n.RS 4\n.nf\n{}", escaped(first));
            while let Some(more) = lines.next_if(|more| more.starts_with("    ")) {
                let _ = writeln!(out, "{}", escaped(&more[4..]));
            }
            out.push_str(".fi\n.RE\n");
        } else if let Some(item) = line.strip_prefix("- ") {
            let _ = writeln!(out, ".IP \\(bu 2\n{}", inline(&joined(item, &mut lines)));
        } else if !line.is_empty() {
            let _ = writeln!(out, ".PP\n{}", inline(&joined(line, &mut lines)));
        }
    }
    out
}

/// The cells of a row of a table.
pub(crate) fn cells(row: &str) -> Vec<&str> {
    row.trim().trim_matches('|').split('|').map(str::trim).collect()
}

/// A table: its first column is the term, its last one the text, those between follow with their headings.
fn table(head: &str, lines: &mut Peekable<Lines<'_>>, out: &mut String) {
    let headings = cells(head);
    lines.next_if(|line| line.starts_with("|-"));
    while let Some(row) = lines.next_if(|line| line.starts_with('|')) {
        let row = cells(row);
        let (Some(term), Some(text)) = (row.first(), row.last()) else { continue };
        let _ = writeln!(out, ".TP\n{}\n{}", inline(term), inline(text));
        for (heading, cell) in headings.iter().zip(&row).take(row.len() - 1).skip(1) {
            let _ = writeln!(out, ".br\n{}: {}", inline(heading), inline(cell));
        }
    }
}

/// The rest of a paragraph, on one line.
fn joined(first: &str, lines: &mut Peekable<Lines<'_>>) -> String {
    let mut paragraph = first.trim().to_owned();
    while let Some(more) = lines.next_if(|more| !more.is_empty() && !more.starts_with("- ") && !more.starts_with('|')) {
        paragraph.push(' ');
        paragraph.push_str(more.trim());
    }
    paragraph
}

/// Code and strong words in bold, emphasis in italics, of a link its words.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (before, marked) = rest.split_at(at);
        out.push_str(&escaped(before));
        let spans = [("`", "`", 'B'), ("**", "**", 'B'), ("*", "*", 'I'), ("[", "]", 'R')];
        let found = spans.iter().find_map(|(open, close, font)| {
            let (inner, after) = marked.strip_prefix(open)?.split_once(close)?;
            (!inner.is_empty()).then_some((inner, after, *font))
        });
        let Some((inner, after, font)) = found else {
            out.push_str(&escaped(&marked[..1]));
            rest = &marked[1..];
            continue;
        };
        match font {
            'R' => out.push_str(&inline(inner)),
            _ => drop(write!(out, "\\f{font}{}\\fR", escaped(inner))),
        }
        let target = after.strip_prefix('(').filter(|_| font == 'R').and_then(|after| after.split_once(')'));
        rest = target.map_or(after, |(_target, after)| after);
    }
    out.push_str(&escaped(rest));
    // A line that begins with one of these would be a request.
    if out.starts_with(['.', '\'']) { format!("\\&{out}") } else { out }
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
