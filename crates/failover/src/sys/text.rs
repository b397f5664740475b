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

/// strtoul(3): the number that C programs read at the beginning of a text, and the text behind it. With base 0 it is
/// hexadecimal after `0x` and octal after `0`.
pub(crate) fn strtoul(text: &str, base: u32) -> (u64, &str) {
    let (negative, size, rest) = integer(text, base);
    let size = u64::try_from(size);
    (size.map_or(u64::MAX, |size| if negative { size.wrapping_neg() } else { size }), rest)
}

/// The same by strtol(3).
pub(crate) fn strtol(text: &str, base: u32) -> (i64, &str) {
    let (negative, size, rest) = integer(text, base);
    let size = i128::try_from(size).unwrap_or(i128::MAX);
    let limit = if negative { i64::MIN } else { i64::MAX };
    (i64::try_from(if negative { -size } else { size }).unwrap_or(limit), rest)
}

/// Sign, size and what is left. Without a digit nothing is read.
fn integer(text: &str, base: u32) -> (bool, u128, &str) {
    let unsigned = text.trim_start_matches([' ', '\t', '\n', '\x0b', '\x0c', '\r']);
    let negative = unsigned.starts_with('-');
    let unsigned = unsigned.strip_prefix(['-', '+']).unwrap_or(unsigned);
    let hexadecimal = unsigned.strip_prefix("0x").or_else(|| unsigned.strip_prefix("0X"));
    let hexadecimal = hexadecimal.filter(|digits| digits.starts_with(|c: char| c.is_ascii_hexdigit()));
    let (digits, base) = match (base, hexadecimal) {
        (0 | 16, Some(digits)) => (digits, 16),
        (0, None) if unsigned.starts_with('0') => (unsigned, 8),
        (0, None) => (unsigned, 10),
        _ => (unsigned, base),
    };
    let (digits, rest) = digits.split_at(digits.find(|c: char| !c.is_digit(base)).unwrap_or(digits.len()));
    if digits.is_empty() {
        return (false, 0, text);
    }
    (negative, u128::from_str_radix(digits, base).unwrap_or(u128::MAX), rest)
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
    fn numbers_are_read_as_c_programs_do() {
        for (text, base, wanted) in [
            ("42", 0, (42, "")),
            (" +42x", 0, (42, "x")),
            ("0x2a", 0, (42, "")),
            ("0x", 0, (0, "x")),
            ("052", 0, (42, "")),
            ("09", 0, (0, "9")),
            ("052", 10, (52, "")),
            ("-1", 10, (u64::MAX, "")),
            ("99999999999999999999999999999999999999999", 10, (u64::MAX, "")),
            (" x", 10, (0, " x")),
        ] {
            assert_eq!(strtoul(text, base), wanted, "{text}");
        }
        let longs = ["-9", "99999999999999999999", "-99999999999999999999", "#"].map(|text| strtol(text, 10).0);
        assert_eq!(longs, [-9, i64::MAX, i64::MIN, 0]);
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
