//! The picture of a timeline: a lane for each machine that may serve, and one for each loop of the client.

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::clock::Moment;
use crate::timeline::{Mark, Timeline};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;

// In pixels.
const LEFT: i32 = 110;
const WIDTH: f64 = 960.0;
const RIGHT: i32 = 1090;
const LANE: i32 = 46;
const TOP: i32 = 60;
/// Seconds before zero that are shown.
const BEFORE: f64 = 3.0;
/// The client's acknowledgements are counted per tenth of a second.
const BIN: f64 = 0.1;

const ACKNOWLEDGED: RGBColor = RGBColor(0x46, 0x76, 0xb5);
const GREY: RGBColor = RGBColor(0x44, 0x44, 0x44);

/// A state that begins and ends with certain marks: a bar in its machine's lane.
struct State {
    name: &'static str,
    begin: &'static str,
    end: &'static str,
    colour: RGBColor,
    /// Pixels that the bar is narrower than the lane, on either side.
    inset: i32,
}

const STATES: [State; 3] = [
    State { name: "off", begin: "power off", end: "power on", colour: RGBColor(0xd8, 0xd8, 0xd8), inset: 0 },
    State {
        name: "holds the address",
        begin: "holds the address",
        end: "does not hold the address any more",
        colour: RGBColor(0xf2, 0xb4, 0x57),
        inset: 6,
    },
    State {
        name: "answers clients through it",
        begin: "answers on 9421 through the address",
        end: "does not answer through the address any more",
        colour: RGBColor(0x3f, 0x8f, 0x5b),
        inset: 13,
    },
];

/// Draws a timeline as an SVG document.
pub(crate) fn draw(story: &Timeline) -> Result<String, Box<dyn std::error::Error>> {
    let loops = [("metadata", &story.metadata), ("writes", &story.writes)];
    let lanes = i32::try_from(story.masters.len() + loops.len())?;
    let bottom = TOP + LANE * lanes;
    let mut svg = String::new();
    {
        let size = (RIGHT.unsigned_abs(), (bottom + 40).unsigned_abs());
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        area.fill(&WHITE)?;
        let picture = Picture { story, area: &area, end: story.end.seconds_since(story.zero) };
        picture.legend()?;
        picture.axis(bottom)?;
        let mut tops = (0..lanes).map(|lane| TOP + LANE * lane);
        for (machine, top) in story.masters.iter().zip(tops.by_ref()) {
            picture.machine(machine, top)?;
        }
        for ((name, acknowledged), top) in loops.into_iter().zip(tops) {
            picture.acknowledgements(name, acknowledged, top)?;
        }
        area.present()?;
    }
    Ok(svg)
}

struct Picture<'a, 'b> {
    story: &'a Timeline,
    area: &'a Area<'b>,
    /// In seconds from zero.
    end: f64,
}

impl Picture<'_, '_> {
    #[allow(clippy::cast_possible_truncation)] // a pixel of the picture
    fn x(&self, seconds: f64) -> i32 {
        let part = ((seconds + BEFORE) / (self.end + BEFORE)).clamp(0.0, 1.0);
        LEFT + (WIDTH * part).round() as i32
    }

    fn seconds(&self, at: Moment) -> f64 {
        at.seconds_since(self.story.zero)
    }

    fn text(&self, text: &str, at: (i32, i32), size: i32, anchor: HPos) -> Drawn {
        let style = ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(anchor, VPos::Center));
        Ok(self.area.draw(&Text::new(text.to_owned(), at, style))?)
    }

    fn line(&self, x: i32, from: i32, to: i32, colour: RGBColor) -> Drawn {
        Ok(self.area.draw(&PathElement::new([(x, from), (x, to)], colour))?)
    }

    fn bar(&self, from: f64, to: f64, [top, bottom]: [i32; 2], colour: RGBColor) -> Drawn {
        let corners = [(self.x(from), top), (self.x(to), bottom)];
        if corners[0].0 < corners[1].0 && top < bottom {
            self.area.draw(&Rectangle::new(corners, colour.filled()))?;
        }
        Ok(())
    }

    fn legend(&self) -> Drawn {
        let states = STATES.iter().map(|state| (state.name, state.colour));
        let names = states.chain([("acknowledged per 0.1 s", ACKNOWLEDGED)]);
        names.zip((LEFT..).step_by(190)).try_for_each(|((name, colour), x)| {
            self.area.draw(&Rectangle::new([(x, 18), (x + 12, 30)], colour.filled()))?;
            self.text(name, (x + 18, 24), 15, HPos::Left)
        })
    }

    /// When a machine held the address, when it answered, and what its ucarp did.
    fn machine(&self, machine: &str, top: i32) -> Drawn {
        let bottom = top + LANE - 8;
        self.text(machine, (10, top + LANE / 2), 15, HPos::Left)?;
        let marks: Vec<&Mark> = self.story.marks.iter().filter(|mark| mark.machine == machine).collect();
        for state in &STATES {
            for (from, to) in self.spans(&marks, state) {
                self.bar(from, to, [top + state.inset, bottom - state.inset], state.colour)?;
            }
        }
        for mark in marks.iter().filter(|mark| mark.what.starts_with("ucarp ") && self.seconds(mark.at) > -BEFORE) {
            let x = self.x(self.seconds(mark.at));
            self.line(x, top, bottom, GREY)?;
            self.text(&mark.what, (x + 3, top + 5), 11, HPos::Left)?;
        }
        Ok(())
    }

    /// When a machine was in a state, in seconds from zero.
    fn spans(&self, marks: &[&Mark], state: &State) -> Vec<(f64, f64)> {
        let mut spans = Vec::new();
        let mut open = None;
        for mark in marks {
            if mark.what == state.begin {
                open.get_or_insert(self.seconds(mark.at));
            } else if mark.what == state.end || mark.what == "power off" {
                spans.extend(open.take().map(|from| (from, self.seconds(mark.at))));
            }
        }
        spans.extend(open.map(|from| (from, self.end)));
        spans
    }

    /// How many operations were acknowledged in each tenth of a second, and the longest time without any.
    #[allow(clippy::cast_possible_truncation)] // a pixel of the picture
    fn acknowledgements(&self, name: &str, acknowledged: &[Moment], top: i32) -> Drawn {
        let bottom = top + LANE - 8;
        self.text(name, (10, top + LANE / 2), 15, HPos::Left)?;
        let times: Vec<f64> = acknowledged.iter().map(|at| self.seconds(*at)).filter(|at| *at > -BEFORE).collect();
        let bins = self.bins(&times);
        let most = bins.iter().copied().max().unwrap_or(1).max(1);
        for (count, bin) in bins.into_iter().zip(0_u32..) {
            let from = f64::from(bin) * BIN - BEFORE;
            let height = (f64::from(LANE - 10) * f64::from(count) / f64::from(most)).round() as i32;
            self.bar(from, from + BIN, [bottom - height, bottom], ACKNOWLEDGED)?;
        }
        if let Some((from, to)) = widest_gap(&times, self.end).filter(|(from, to)| to - from > 1.0) {
            let text = format!("{:.1} s without an answer", to - from);
            self.text(&text, (self.x(f64::midpoint(from, to)), top + LANE / 2), 15, HPos::Center)?;
        }
        Ok(())
    }

    fn bins(&self, times: &[f64]) -> Vec<u32> {
        let mut bins = Vec::new();
        let mut left = times.iter().peekable();
        let mut until = -BEFORE + BIN;
        while until < self.end {
            let mut count = 0;
            while left.next_if(|at| **at < until).is_some() {
                count += 1;
            }
            bins.push(count);
            until += BIN;
        }
        bins
    }

    fn axis(&self, bottom: i32) -> Drawn {
        let step = if self.end > 40.0 { 5 } else { 1 };
        for second in (0_u32..).step_by(step).take_while(|second| f64::from(*second) <= self.end) {
            let x = self.x(f64::from(second));
            self.line(x, TOP, bottom, RGBColor(0xe8, 0xe8, 0xe8))?;
            self.text(&format!("{second} s"), (x, bottom + 14), 15, HPos::Center)?;
        }
        Ok(())
    }
}

fn widest_gap(times: &[f64], end: f64) -> Option<(f64, f64)> {
    let all: Vec<f64> = times.iter().copied().chain([end]).collect();
    let gaps = all.windows(2).map(|pair| (pair[0], pair[1]));
    gaps.max_by(|one, other| (one.1 - one.0).total_cmp(&(other.1 - other.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn picture_shows_the_takeover_and_the_gap() {
        let second = |seconds: u64| Moment(seconds * 1_000_000_000);
        let mark = |at, machine: &str, what: &str| Mark { at: second(at), machine: machine.into(), what: what.into() };
        let story = Timeline {
            zero: second(10),
            end: second(20),
            masters: vec!["m1".into(), "m2".into()],
            marks: vec![
                mark(5, "m1", "holds the address"),
                mark(5, "m1", "answers on 9421 through the address"),
                mark(10, "m1", "power off"),
                mark(13, "m2", "ucarp MASTER"),
                mark(13, "m2", "holds the address"),
                mark(15, "m2", "answers on 9421 through the address"),
            ],
            metadata: vec![second(9), second(16), second(17)],
            writes: vec![second(9), second(19)],
        };
        let picture = story.svg().expect("a picture");
        assert!(picture.starts_with("<svg") && picture.trim_end().ends_with("</svg>"), "{picture}");
        assert!(picture.contains("7.0 s without an answer") && picture.contains("10.0 s without an answer"));
        assert!(picture.contains("ucarp MASTER"));
    }
}
