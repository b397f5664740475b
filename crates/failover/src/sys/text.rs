//! How numbers, times and names are written: one form for each.

use std::ffi::OsStr;
use std::time::Duration;

use chrono::{DateTime, Utc};

/// A time in Unix seconds: `2026-11-22 21:04:31 UTC`.
pub(crate) fn when(unix: u64) -> String {
    let time = i64::try_from(unix).ok().and_then(|seconds| DateTime::<Utc>::from_timestamp(seconds, 0));
    time.map_or_else(|| format!("second {unix} since 1970"), |time| time.format("%Y-%m-%d %H:%M:%S UTC").to_string())
}

/// A duration: `12 ms`, `1.26 s`, `12.3 s`, `60 s`, `2.5 min`, `23.5 h`. At most three digits, without trailing zeros.
pub(crate) fn human(time: Duration) -> String {
    let seconds = time.as_secs_f64();
    let (number, unit) = match time.as_secs() {
        0 => return format!("{} ms", time.as_millis()),
        1..=9 => (format!("{seconds:.2}"), "s"),
        10..=119 => (format!("{seconds:.1}"), "s"),
        120..=7199 => (format!("{:.1}", seconds / 60.0), "min"),
        _ => (format!("{:.1}", seconds / 3600.0), "h"),
    };
    format!("{} {unit}", number.trim_end_matches('0').trim_end_matches('.'))
}

/// A file name as text, with everything escaped that is not text or would break a line.
pub(crate) fn shown(name: &OsStr) -> String {
    name.to_string_lossy().escape_debug().to_string()
}

/// Appends aligned and indented rows; the first row is the heading. Columns that are empty below it are omitted.
pub(crate) fn table<const N: usize>(text: &mut String, rows: &[[String; N]]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
    let used = |column: &usize| rows.len() == 1 || rows.iter().skip(1).any(|row| !row[*column].is_empty());
    let columns: Vec<_> = (0..N).filter(used).map(|column| (column, width(column))).collect();
    for row in rows {
        let cells = columns.iter().map(|(column, width)| format!("{:width$}", row[*column]));
        text.push_str(format!("  {}", cells.collect::<Vec<_>>().join("  ")).trim_end());
        text.push('\n');
    }
}

/// `1 file`, `2 files`
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// A value for programs, with the line end that people like.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string_pretty(value).expect("text and numbers, under names") + "\n"
}

/// A size: `53.1 MB`.
pub(crate) fn bytes(count: u64) -> String {
    #[allow(clippy::cast_precision_loss)] // three digits are shown
    let count = count as f64;
    match count {
        c if c >= 1e9 => format!("{:.1} GB", c / 1e9),
        c if c >= 1e6 => format!("{:.1} MB", c / 1e6),
        c if c >= 1e3 => format!("{:.1} kB", c / 1e3),
        c => format!("{c} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_align_and_end_without_blanks() {
        let mut text = String::new();
        table(&mut text, &[["a", "none", "file"].map(str::to_owned), ["long", "", "x"].map(str::to_owned)]);
        assert_eq!(text, "  a     file\n  long  x\n");
    }

    #[test]
    fn sizes_and_times_read_well() {
        assert_eq!([count(1, "file"), count(0, "file")], ["1 file", "0 files"]);
        assert_eq!([bytes(8), bytes(2900), bytes(53_100_000)], ["8 B", "2.9 kB", "53.1 MB"]);
        let times = [0.0, 0.0126, 1.0, 1.256, 3.2, 12.34, 60.0, 119.0, 150.0, 600.0, 84_600.0];
        let read = times.map(|seconds| human(Duration::from_secs_f64(seconds)));
        let expected =
            ["0 ms", "12 ms", "1 s", "1.26 s", "3.2 s", "12.3 s", "60 s", "119 s", "2.5 min", "10 min", "23.5 h"];
        assert_eq!(read, expected);
        assert_eq!(when(1_795_380_000), "2026-11-22 20:40:00 UTC");
    }
}
