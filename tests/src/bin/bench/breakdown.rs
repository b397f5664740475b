//! Where the time of an outage goes: one power cut from its real time stamps, as a picture and as a table.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::Result;
use crate::page::{Row, row, table};
use crate::plot;
use crate::power_cut::PowerCut;

const SIZE: (u32, u32) = (980, 460);

/// A part of the outage: where it begins and ends in seconds from the power cut.
struct Bar {
    name: &'static str,
    begin: f64,
    end: f64,
    owner: Owner,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Owner {
    Ucarp,
    Ours,
    MooseFs,
}

impl Owner {
    const ALL: [Self; 3] = [Self::Ucarp, Self::Ours, Self::MooseFs];

    fn name(self) -> &'static str {
        match self {
            Self::Ucarp => "ucarp",
            Self::Ours => "ours",
            Self::MooseFs => "MooseFS",
        }
    }

    fn colour(self) -> RGBColor {
        match self {
            Self::Ucarp => RGBColor(0xe0, 0x9a, 0x36),
            Self::Ours => RGBColor(0x3f, 0x8f, 0x5b),
            Self::MooseFs => RGBColor(0x46, 0x76, 0xb5),
        }
    }
}

/// Each part's owner, its floor, and what changes it.
const PARTS: [(&str, Owner, &str, &str); 12] = [
    ("detection", Owner::Ucarp, "`advbase` × `deadratio` less the age of the last advertisement", "ucarp `-b`, `-r`"),
    ("hook", Owner::Ours, "milliseconds", ""),
    ("prepare", Owner::Ours, "beside settle; one copy of the image", "a file system with reflinks"),
    (
        "settle",
        Owner::Ours,
        "0.5 s where heartbeats tell enough, else an interval",
        "`SETTLE_MARGIN`, ucarp `-b`, `-k`",
    ),
    ("metalogger", Owner::Ours, "its own clean end", ""),
    ("stage", Owner::Ours, "writing the changes", "`META_DOWNLOAD_FREQ = 1`: fewer changes"),
    ("commit", Owner::Ours, "a few renames and flushes", ""),
    ("start", Owner::MooseFs, "loading the image and the changes once", "`META_DOWNLOAD_FREQ = 1`"),
    ("prove", Owner::Ours, "one question", ""),
    (
        "client is back",
        Owner::MooseFs,
        "it is reset when the master answers, if it was heard",
        "`net.ipv4.tcp_rto_max_ms`",
    ),
    ("chunkserver is back", Owner::MooseFs, "its next try", "`MASTER_RECONNECTION_DELAY`"),
    ("writes are back", Owner::MooseFs, "chunkservers, then the client's next try", "`MASTER_RECONNECTION_DELAY`"),
];

/// The run whose metadata outage is the median one, as a picture, and a table of its parts.
pub(crate) fn draw(runs: &[PowerCut]) -> Result<(String, String)> {
    let mut sorted: Vec<&PowerCut> = runs.iter().filter(|run| run.resumed).collect();
    sorted.sort_by(|one, other| one.metadata.total_cmp(&other.metadata));
    let run = sorted.get(sorted.len() / 2).ok_or("no run went through")?;
    let bars = bars(run);
    let mut rows: Vec<Row> = vec![row(["part", "from", "to", "owner", "floor", "what changes it"])];
    for (bar, (_, _, floor, setting)) in
        bars.iter().filter_map(|bar| Some((bar, PARTS.iter().find(|p| p.0 == bar.name)?)))
    {
        let [begin, end] = [bar.begin, bar.end].map(|at| format!("{at:.2} s"));
        rows.push(vec![bar.name.into(), begin, end, bar.owner.name().into(), (*floor).into(), (*setting).into()]);
    }
    let text = format!(
        "\n![where the time of an outage goes](outage.svg)\n\nOne of these power cuts, the one with the median outage; time counts from the cut:\n\n{}",
        table(&rows)
    );
    Ok((picture(&bars)?, text))
}

fn bars(run: &PowerCut) -> Vec<Bar> {
    let master = run.detection.unwrap_or_default();
    let serving = master + run.takeover.unwrap_or_default();
    let step = |name: &str| run.steps.iter().find(|step| step.name == name).map(|step| (step.begin, step.end));
    let settle = step("settle");
    let span = |name: &str| match name {
        "detection" => Some((0.0, master)),
        "hook" => run.hook.map(|hook| (master, hook)),
        // It began with settle and was logged after it.
        "prepare" => step(name).zip(settle).map(|((begin, end), (start, _))| (start, start + end - begin)),
        "client is back" => run.back[0].map(|back| (serving, back)),
        "chunkserver is back" => run.registered.map(|back| (serving, back)),
        "writes are back" => run.back[1].map(|back| (serving, back)),
        _ => step(name),
    };
    PARTS
        .iter()
        .filter_map(|(name, owner, ..)| span(name).map(|(begin, end)| Bar { name, begin, end, owner: *owner }))
        .collect()
}

fn picture(bars: &[Bar]) -> Result<String> {
    let end = bars.iter().map(|bar| bar.end).fold(1.0, f64::max) * 1.08;
    let lanes = f64::from(u32::try_from(bars.len())?);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Where the time of an outage goes", ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(45)
            .y_label_area_size(150)
            .build_cartesian_2d(0.0..end, 0.0..lanes)?;
        chart.configure_mesh().x_desc("seconds from the power cut").disable_y_mesh().disable_y_axis().draw()?;
        let lane = |index: usize| -> Result<f64> { Ok(lanes - 1.0 - f64::from(u32::try_from(index)?)) };
        for owner in Owner::ALL {
            let mut drawn = Vec::new();
            for (index, bar) in bars.iter().enumerate().filter(|(_, bar)| bar.owner == owner) {
                let bottom = lane(index)?;
                // A part of milliseconds is still seen.
                let right = bar.end.max(bar.begin + end / 400.0);
                drawn.push(Rectangle::new(
                    [(bar.begin, bottom + 0.15), (right, bottom + 0.85)],
                    owner.colour().filled(),
                ));
            }
            chart
                .draw_series(drawn)?
                .label(owner.name())
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], owner.colour().filled()));
        }
        for (index, bar) in bars.iter().enumerate() {
            let middle = lane(index)? + 0.5;
            let style = ("sans-serif", 13).into_font().color(&BLACK);
            let right = style.pos(Pos::new(HPos::Right, VPos::Center));
            let (left, _) = chart.plotting_area().get_base_pixel();
            let (_, y) = chart.plotting_area().map_coordinate(&(0.0, middle));
            area.draw(&Text::new(bar.name, (left - 8, y), right))?;
            let took = bar.end - bar.begin;
            let label = if took < 0.1 { format!("{:.0} ms", took * 1e3) } else { format!("{took:.2} s") };
            let (x, _) = chart.plotting_area().map_coordinate(&(bar.end, middle));
            let style = ("sans-serif", 12).into_font().color(&BLACK).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(label, (x + 6, y), style))?;
        }
        plot::legend(&mut chart, SeriesLabelPosition::UpperRight)?;
        area.present()?;
    }
    Ok(svg)
}
