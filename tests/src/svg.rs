//! The picture of a timeline: a lane per machine that may serve, and one per loop of the client.

use std::fmt::Write as _;
use std::time::Duration;

use crate::clock::Moment;
use crate::timeline::{Mark, Timeline};

const LEFT: f64 = 110.0;
const WIDTH: f64 = 960.0;
const LANE: f64 = 46.0;
const TOP: f64 = 60.0;
/// So much of the time before zero is shown.
const BEFORE: f64 = 3.0;
/// The client's acknowledgements are counted per tenth of a second.
const BIN: f64 = 0.1;

/// A state that begins and ends with certain marks, as a bar in its machine's lane.
struct State {
    begin: &'static str,
    end: &'static str,
    colour: &'static str,
    inset: f64,
}

const STATES: [State; 3] = [
    State { begin: "power off", end: "power on", colour: "#d8d8d8", inset: 0.0 },
    State { begin: "holds the address", end: "does not hold the address any more", colour: "#f2b457", inset: 6.0 },
    State {
        begin: "answers on 9421 through the address",
        end: "does not answer through the address any more",
        colour: "#3f8f5b",
        inset: 13.0,
    },
];

/// Draws a timeline as an SVG document.
pub(crate) fn draw(story: &Timeline) -> String {
    let picture = Picture { story, end: story.end.seconds_since(story.zero) };
    let lanes: Vec<&String> = story.masters.iter().collect();
    let mut out = String::new();
    for (number, machine) in lanes.iter().enumerate() {
        picture.machine(&mut out, machine, top(number));
    }
    for (number, (name, acks)) in [("metadata", &story.metadata), ("writes", &story.writes)].into_iter().enumerate() {
        picture.acknowledgements(&mut out, name, acks, top(lanes.len() + number));
    }
    let bottom = top(lanes.len() + 2);
    picture.axis(&mut out, bottom);
    let height = bottom + 40.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n{LEGEND}{out}</svg>\n",
        LEFT + WIDTH + 20.0
    )
}

const LEGEND: &str = "<text x=\"110\" y=\"24\"><tspan fill=\"#999\">&#9632; off</tspan>  \
    <tspan fill=\"#f2b457\">&#9632; holds the address</tspan>  \
    <tspan fill=\"#3f8f5b\">&#9632; answers clients through it</tspan>  \
    <tspan fill=\"#4676b5\">&#9632; acknowledged per 0.1 s</tspan></text>\n";

#[allow(clippy::cast_precision_loss)] // a handful of lanes
fn top(lane: usize) -> f64 {
    TOP + LANE * lane as f64
}

struct Picture<'a> {
    story: &'a Timeline,
    end: f64,
}

impl Picture<'_> {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + WIDTH * ((seconds + BEFORE) / (self.end + BEFORE)).clamp(0.0, 1.0)
    }

    fn seconds(&self, at: Moment) -> f64 {
        at.seconds_since(self.story.zero)
    }

    fn machine(&self, out: &mut String, machine: &str, y: f64) {
        let _ = writeln!(out, "<text x=\"10\" y=\"{:.1}\">{machine}</text>", y + LANE / 2.0);
        let marks: Vec<&Mark> = self.story.marks.iter().filter(|mark| mark.machine == machine).collect();
        for state in &STATES {
            for (from, to) in self.spans(&marks, state) {
                self.bar(out, from, to, y + state.inset, LANE - 8.0 - 2.0 * state.inset, state.colour);
            }
        }
        for mark in marks.iter().filter(|mark| mark.what.starts_with("ucarp ") && self.seconds(mark.at) > -BEFORE) {
            let x = self.x(self.seconds(mark.at));
            let _ = writeln!(
                out,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{y:.1}\" y2=\"{:.1}\" stroke=\"#444\"/>",
                y + LANE - 8.0
            );
            let _ =
                writeln!(out, "<text x=\"{:.1}\" y=\"{:.1}\" font-size=\"9\">{}</text>", x + 2.0, y + 8.0, mark.what);
        }
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

    fn bar(&self, out: &mut String, from: f64, to: f64, y: f64, height: f64, colour: &str) {
        let (x, width) = (self.x(from), self.x(to) - self.x(from));
        if width > 0.0 {
            let _ = writeln!(
                out,
                "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\" fill=\"{colour}\"/>"
            );
        }
    }

    fn acknowledgements(&self, out: &mut String, name: &str, acks: &[Moment], y: f64) {
        let _ = writeln!(out, "<text x=\"10\" y=\"{:.1}\">{name}</text>", y + LANE / 2.0);
        let times: Vec<f64> = acks.iter().map(|at| self.seconds(*at)).filter(|at| *at > -BEFORE).collect();
        let bins = self.bins(&times);
        let most = bins.iter().copied().max().unwrap_or(1).max(1);
        let mut from = -BEFORE;
        for count in bins {
            let height = (LANE - 10.0) * f64::from(count) / f64::from(most);
            self.bar(out, from, from + BIN, y + LANE - 8.0 - height, height, "#4676b5");
            from += BIN;
        }
        if let Some((from, to)) = widest_gap(&times, self.end).filter(|(from, to)| to - from > 1.0) {
            let middle = self.x(f64::midpoint(from, to));
            let text = format!("{:.1} s without an answer", to - from);
            let _ = writeln!(
                out,
                "<text x=\"{middle:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{text}</text>",
                y + LANE / 2.0
            );
        }
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

    fn axis(&self, out: &mut String, y: f64) {
        let step = if self.end > 40.0 { 5 } else { 1 };
        let mut second = Duration::ZERO;
        while second.as_secs_f64() <= self.end {
            let x = self.x(second.as_secs_f64());
            let _ =
                writeln!(out, "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{y:.1}\" stroke=\"#00000018\"/>");
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} s</text>",
                y + 18.0,
                second.as_secs()
            );
            second += Duration::from_secs(step);
        }
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
                mark(10, "m1", "power off"),
                mark(13, "m2", "ucarp MASTER"),
                mark(13, "m2", "holds the address"),
            ],
            metadata: vec![second(9), second(16), second(17)],
            writes: vec![second(9), second(19)],
        };
        let picture = story.svg();
        assert!(picture.starts_with("<svg") && picture.ends_with("</svg>\n"));
        assert!(picture.contains("7.0 s without an answer") && picture.contains("10.0 s without an answer"));
        assert!(picture.contains("ucarp MASTER"));
    }
}
