//! Pictures of measurements, as SVG documents.

use plotters::coord::CoordTranslate;
use plotters::coord::ranged1d::{AsRangedCoord, Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::Result;

const SIZE: (u32, u32) = (900, 480);
/// For the eye: ours, the shell hooks, MooseFS alone.
pub(crate) const COLOURS: [RGBColor; 4] =
    [RGBColor(0x3f, 0x8f, 0x5b), RGBColor(0xc2, 0x5b, 0x3b), RGBColor(0x46, 0x76, 0xb5), RGBColor(0x88, 0x88, 0x88)];

/// A line with a mark at each measurement.
pub(crate) struct Line {
    pub(crate) name: &'static str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Lines over two logarithmic axes: what is proportional is a line of the same slope.
pub(crate) fn growth(title: &str, x: &str, y: &str, lines: &[Line]) -> Result<String> {
    let all = || lines.iter().flat_map(|line| line.points.iter().copied());
    let range = |values: Vec<f64>| {
        let low = values.iter().copied().fold(f64::INFINITY, f64::min);
        let high = values.iter().copied().fold(0.0, f64::max);
        low * 0.7..high * 1.5
    };
    let (xs, ys) = (range(all().map(|point| point.0).collect()), range(all().map(|point| point.1).collect()));
    draw(title, x, y, xs.log_scale(), ys.log_scale(), lines)
}

fn draw<X, Y>(title: &str, x: &str, y: &str, xs: X, ys: Y, lines: &[Line]) -> Result<String>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y::CoordDescType: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d(xs, ys)?;
        chart
            .configure_mesh()
            .x_desc(x)
            .y_desc(y)
            .x_label_formatter(&|value| readable(*value))
            .y_label_formatter(&|value| readable(*value))
            .light_line_style(WHITE)
            .draw()?;
        for (line, colour) in lines.iter().zip(COLOURS) {
            chart
                .draw_series(LineSeries::new(line.points.iter().copied(), colour.stroke_width(2)))?
                .label(line.name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
            chart.draw_series(line.points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
        }
        legend(&mut chart, SeriesLabelPosition::UpperLeft)?;
        area.present()?;
    }
    Ok(svg)
}

/// How many of `values` lie in each step of `width`, as bars.
pub(crate) fn histogram(
    title: &str,
    x: &str,
    width: f64,
    mark: (f64, &str),
    values: &[(&str, Vec<f64>)],
) -> Result<String> {
    let end = values.iter().flat_map(|(_, values)| values).copied().fold(mark.0, f64::max) * 1.1;
    let bins = |values: &[f64]| {
        let mut counts = vec![0_u32; number(end / width) + 1];
        for value in values {
            counts[number(value / width)] += 1;
        }
        counts
    };
    let counted: Vec<_> = values.iter().map(|(name, values)| (*name, bins(values))).collect();
    let most = counted.iter().flat_map(|(_, counts)| counts).copied().max().unwrap_or(1);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ("sans-serif", 20))
            .margin(12)
            .x_label_area_size(45)
            .y_label_area_size(60)
            .build_cartesian_2d(0.0..end, 0.0..f64::from(most) * 1.2)?;
        chart.configure_mesh().x_desc(x).y_desc("elections").light_line_style(WHITE).disable_x_mesh().draw()?;
        for (index, ((name, counts), colour)) in counted.iter().zip(COLOURS).enumerate() {
            let part = width / f64::from(u32::try_from(counted.len())?);
            let offset = part * f64::from(u32::try_from(index)?);
            let bars = counts.iter().zip(0_u32..).filter(|(count, _)| **count > 0).map(|(count, bin)| {
                let from = f64::from(bin) * width + offset;
                Rectangle::new([(from, 0.0), (from + part, f64::from(*count))], colour.filled())
            });
            chart
                .draw_series(bars)?
                .label(*name)
                .legend(move |(x, y)| Rectangle::new([(x, y - 5), (x + 14, y + 5)], colour.filled()));
        }
        let top = f64::from(most) * 1.2;
        chart
            .draw_series(LineSeries::new([(mark.0, 0.0), (mark.0, top)], BLACK.stroke_width(2)))?
            .label(mark.1)
            .legend(|(x, y)| PathElement::new([(x, y), (x + 14, y)], BLACK.stroke_width(2)));
        legend(&mut chart, SeriesLabelPosition::UpperRight)?;
        area.present()?;
    }
    Ok(svg)
}

/// The names of what is drawn, in a box; the pictures have it alike.
pub(crate) fn legend<'a, C: CoordTranslate>(
    chart: &mut ChartContext<'a, SVGBackend<'a>, C>,
    at: SeriesLabelPosition,
) -> Result<()> {
    let mut labels = chart.configure_series_labels();
    labels.position(at).background_style(WHITE.mix(0.9)).border_style(RGBColor(0xbb, 0xbb, 0xbb));
    labels.label_font(("sans-serif", 14)).draw()?;
    Ok(())
}

/// `10,000`, `0.5`
fn readable(value: f64) -> String {
    if value < 10.0 {
        return format!("{value}");
    }
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index) % 3 == 0 {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a bin's number
fn number(value: f64) -> usize {
    value.max(0.0) as usize
}
