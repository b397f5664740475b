//! Our Markdown as roff for `man`, and the tables in it as plain words.
//!
//! pulldown-cmark reads the text; this module says how each element looks in a manual page. `man` has no tables, so a row
//! becomes a term (its first column) with a text (its last one), and the columns in between follow with their headings.
//! Of a link only the words stay, HTML is left out, and so is a heading of one sign: it is the title of the page.

use std::fmt::Write as _;

use pulldown_cmark::{Event, HeadingLevel, Options, Parser, Tag, TagEnd};

/// The page of section 5, from the reference.
pub(crate) fn configuration_page(reference: &str) -> String {
    let source = concat!("moosefs-ucarp ", env!("CARGO_PKG_VERSION"));
    format!(
        ".TH mfspromote.cfg 5 \"\" \"{source}\" \"MooseFS failover\"\n\
         .SH NAME\nmfspromote.cfg \\- configuration of mfs\\-promote, vip\\-up and vip\\-down\n.SH DESCRIPTION\n{}\
         .SH SEE ALSO\n.BR mfs\\-promote (8),\n.BR mfsmaster.cfg (5),\n.BR mfsmetalogger.cfg (5)\n",
        to_roff(reference)
    )
}

/// A text as the body of a page.
pub(crate) fn to_roff(text: &str) -> String {
    let mut roff = Roff::default();
    parser(text).for_each(|event| roff.take(event));
    roff.out
}

/// A cell of a table.
#[derive(Debug, Default)]
pub(crate) struct Cell {
    /// Its words, without marks.
    pub(crate) words: String,
    /// Whether it is one piece of code and nothing else: a value to be written as it stands.
    pub(crate) is_code: bool,
}

/// The rows of the first table below the heading `section`, without its head.
pub(crate) fn table(text: &str, section: &str) -> Vec<Vec<Cell>> {
    let (mut rows, mut heading): (Vec<Vec<Cell>>, Option<String>) = (Vec::new(), None);
    let (mut inside, mut pieces) = (false, 0);
    for event in parser(text) {
        match event {
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => inside = heading.take().as_deref() == Some(section),
            Event::End(TagEnd::Table) if inside => break,
            Event::Start(Tag::TableRow) if inside => rows.push(Vec::new()),
            Event::Start(Tag::TableCell) if inside => {
                pieces = 0;
                rows.iter_mut().last().into_iter().for_each(|row| row.push(Cell::default()));
            }
            Event::Text(ref words) | Event::Code(ref words) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(words);
                } else if let (true, Some(cell)) = (inside, rows.last_mut().and_then(|row| row.last_mut())) {
                    pieces += 1;
                    cell.words.push_str(words);
                    cell.is_code = pieces == 1 && matches!(event, Event::Code(_));
                }
            }
            _ => (),
        }
    }
    rows
}

fn parser(text: &str) -> Parser<'_> {
    Parser::new_ext(text, Options::ENABLE_TABLES)
}

/// Where the words that are being read belong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Place {
    #[default]
    Prose,
    /// The title of the page, which is left out.
    Title,
    /// The title of a section, which manual pages write in capitals.
    Section,
    Code,
}

/// A page that is being written.
#[derive(Default)]
struct Roff {
    out: String,
    /// The paragraph, heading or cell that is being read.
    text: String,
    /// The fonts in force, the innermost one last.
    fonts: Vec<char>,
    place: Place,
    /// The number of the next item of each open list; `None` for bullets.
    lists: Vec<Option<u64>>,
    /// Whether the next paragraph is the first one of an item, which begins on the item's own line.
    item_begins: bool,
    headings: Vec<String>,
    cells: Vec<String>,
}

impl Roff {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Text(words) => match self.place {
                Place::Prose => self.text.push_str(&escaped(&words)),
                Place::Section => self.text.push_str(&escaped(&words.to_uppercase())),
                Place::Code => self.text.push_str(&words),
                Place::Title => (),
            },
            Event::Code(words) => {
                self.font('B');
                self.text.push_str(&escaped(&words));
                self.last_font();
            }
            Event::SoftBreak => self.text.push(' '),
            Event::HardBreak => {
                self.flush();
                self.out.push_str(".br\n");
            }
            _ => (),
        }
    }

    fn start(&mut self, tag: &Tag<'_>) {
        match tag {
            Tag::Heading { level: HeadingLevel::H1, .. } => self.place = Place::Title,
            Tag::Heading { level: HeadingLevel::H2, .. } => self.place = Place::Section,
            Tag::Paragraph if std::mem::take(&mut self.item_begins) => (),
            Tag::Paragraph if !self.lists.is_empty() => self.out.push_str(".IP\n"),
            Tag::Paragraph => self.out.push_str(".PP\n"),
            Tag::CodeBlock(_) => {
                self.flush();
                self.place = Place::Code;
            }
            Tag::List(first) => {
                self.flush();
                if !self.lists.is_empty() {
                    self.out.push_str(".RS 4\n");
                }
                self.lists.push(*first);
            }
            Tag::Item => {
                match self.lists.last_mut() {
                    Some(Some(number)) => {
                        let _ = writeln!(self.out, ".IP {number}. 4");
                        *number += 1;
                    }
                    _ => self.out.push_str(".IP \\(bu 2\n"),
                }
                self.item_begins = true;
            }
            Tag::Table(_) => self.headings.clear(),
            Tag::Emphasis => self.font('I'),
            Tag::Strong => self.font('B'),
            _ => (),
        }
    }

    fn end(&mut self, tag: TagEnd) {
        match tag {
            TagEnd::Heading(_) => {
                let title = std::mem::take(&mut self.text);
                let _ = match std::mem::take(&mut self.place) {
                    Place::Title => Ok(()),
                    Place::Section => writeln!(self.out, ".SH {title}"),
                    Place::Prose | Place::Code => writeln!(self.out, ".SS {title}"),
                };
            }
            TagEnd::Paragraph | TagEnd::Item => self.flush(),
            TagEnd::CodeBlock => self.code_block(),
            TagEnd::List(_) => {
                self.lists.pop();
                if !self.lists.is_empty() {
                    self.out.push_str(".RE\n");
                }
            }
            TagEnd::TableCell => self.cells.push(std::mem::take(&mut self.text)),
            TagEnd::TableHead => self.headings = std::mem::take(&mut self.cells),
            TagEnd::TableRow => self.row(),
            TagEnd::Emphasis | TagEnd::Strong => self.last_font(),
            _ => (),
        }
    }

    fn font(&mut self, font: char) {
        self.fonts.push(font);
        let _ = write!(self.text, "\\f{font}");
    }

    fn last_font(&mut self) {
        self.fonts.pop();
        let _ = write!(self.text, "\\f{}", self.fonts.last().unwrap_or(&'R'));
    }

    fn flush(&mut self) {
        if !self.text.is_empty() {
            let text = std::mem::take(&mut self.text);
            self.line(&text);
        }
    }

    /// A line of text: one that begins like a request must not become one.
    fn line(&mut self, text: &str) {
        let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
        let _ = writeln!(self.out, "{guard}{text}");
    }

    fn code_block(&mut self) {
        self.place = Place::Prose;
        self.out.push_str(".PP\n.RS 4\n.nf\n");
        for line in std::mem::take(&mut self.text).lines() {
            self.line(&escaped(line));
        }
        self.out.push_str(".fi\n.RE\n");
    }

    fn row(&mut self) {
        let (cells, headings) = (std::mem::take(&mut self.cells), std::mem::take(&mut self.headings));
        if let [term, between @ .., text] = &cells[..] {
            self.out.push_str(".TP\n");
            self.line(term);
            self.line(text);
            for (heading, cell) in headings.iter().skip(1).zip(between) {
                let _ = writeln!(self.out, ".br\n{heading}: {cell}");
            }
        }
        self.headings = headings;
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}
