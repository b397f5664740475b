//! One line of a change log. This is done for every line of gigabytes.

use memchr::memchr2_iter;

use super::LIMIT;

/// Digits of the longest number below [`LIMIT`].
const MOST_DIGITS: usize = 19;

/// One good line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line<'a> {
    /// The change's id.
    pub(crate) id: u64,
    /// When it was made, in Unix seconds of the master's clock.
    pub(crate) time: u64,
    /// `TIME|OP(arguments)[:result]`: all behind the id, without the newline.
    pub(crate) change: &'a [u8],
    /// `OP(arguments)[:result]`: all behind the time.
    pub(crate) operation: &'a [u8],
}

/// Takes one line apart (without its newline); `None` if it is none.
pub(crate) fn parse(text: &[u8]) -> Option<Line<'_>> {
    let (id, rest) = number(text)?;
    let change = rest.strip_prefix(b": ")?;
    let (time, rest) = number(change)?;
    let operation = rest.strip_prefix(b"|")?;
    is_operation(operation).then_some(Line { id, time, change, operation })
}

/// Leading decimal digits as the daemons print them: no sign, no leading zero.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let (mut value, mut digits) = match text.first_chunk().and_then(|eight| eight_digits(*eight)) {
        Some(value) => (value, 8),
        None => (0, 0),
    };
    // One with more digits is beyond the limit; up to here it fits.
    while let Some(digit) = text.get(digits).map(|byte| byte.wrapping_sub(b'0')).filter(|digit| *digit < 10) {
        if digits == MOST_DIGITS {
            return None;
        }
        value = value * 10 + u64::from(digit);
        digits += 1;
    }
    let plain = digits == 1 || (digits > 1 && text[0] != b'0');
    (plain && value < LIMIT).then(|| (value, &text[digits..]))
}

/// Eight digits at once: pairs, then pairs of pairs, side by side in one word. Every line of gigabytes begins with two
/// such numbers.
fn eight_digits(text: [u8; 8]) -> Option<u64> {
    let word = u64::from_le_bytes(text);
    let high = |word: u64| word & 0xf0f0_f0f0_f0f0_f0f0;
    if high(word) != 0x3030_3030_3030_3030 || high(word + 0x0606_0606_0606_0606) != 0x3030_3030_3030_3030 {
        return None;
    }
    let ones = word & 0x0f0f_0f0f_0f0f_0f0f;
    let pairs = (ones * 10 + (ones >> 8)) & 0x00ff_00ff_00ff_00ff;
    let fours = (pairs * 100 + (pairs >> 16)) & 0x0000_ffff_0000_ffff;
    Some((fours * 10_000 + (fours >> 32)) & 0xffff_ffff)
}

/// `NAME(balanced)` with an optional `:numbers` or `:(balanced)` behind it, no control byte anywhere.
fn is_operation(text: &[u8]) -> bool {
    let name = text.iter().take_while(|byte| NAME[usize::from(**byte)]).count();
    if name == 0 {
        return false;
    }
    is_plain(text, name) || (!has_any(text, is_control) && is_nested(&text[name..]))
}

/// Nearly all: no parentheses but the two around the arguments, and numbers as a result.
fn is_plain(text: &[u8], name: usize) -> bool {
    let Some(last) = text.iter().rposition(|byte| !RESULT[usize::from(*byte)]) else { return false };
    let close = match &text[..=last] {
        [.., b')'] if last + 1 == text.len() => last,
        [.., b')', b':'] => last - 1,
        _ => return false,
    };
    text[name] == b'('
        && close > name
        && !has_any(&text[name + 1..close], |word| is_control(word) | is_parenthesis(word))
}

/// The rest: storage classes, folders' contents.
fn is_nested(text: &[u8]) -> bool {
    match group(text) {
        Some([]) => true,
        Some(rest @ [b':', b'(', ..]) => group(&rest[1..]).is_some_and(<[u8]>::is_empty),
        Some([b':', result @ ..]) => result.iter().all(|byte| RESULT[usize::from(*byte)]),
        _ => false,
    }
}

/// The characters of a name.
const NAME: [bool; 256] = table(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_");
/// The characters of the numbers of a result.
const RESULT: [bool; 256] = table(b"0123456789,-");

const fn table(bytes: &[u8]) -> [bool; 256] {
    let mut table = [false; 256];
    let mut at = 0;
    while at < bytes.len() {
        table[bytes[at] as usize] = true;
        at += 1;
    }
    table
}

/// Whether one of eight bytes, or any, is what `marks` looks for: it says so in the highest bit of some byte.
fn has_any(text: &[u8], marks: impl Fn(u64) -> u64) -> bool {
    const HIGHEST: u64 = 0x8080_8080_8080_8080;
    let Some(last) = text.last_chunk() else {
        // Padded with blanks, which no search marks.
        let mut short = [b' '; 8];
        short[..text.len()].copy_from_slice(text);
        return marks(u64::from_le_bytes(short)) & HIGHEST != 0;
    };
    let words = text.chunks_exact(8).map(|word| marks(u64::from_le_bytes(word.try_into().expect("eight bytes"))));
    // The last eight overlap those before them.
    (words.fold(0, |found, word| found | word) | marks(u64::from_le_bytes(*last))) & HIGHEST != 0
}

/// Marks bytes below a space, and 127. Others behind a marked one may be marked too.
fn is_control(word: u64) -> u64 {
    let low = word.wrapping_sub(0x2020_2020_2020_2020) & !word;
    low | is_zero(word ^ 0x7f7f_7f7f_7f7f_7f7f)
}

/// Marks the two parentheses, which differ in the lowest bit.
fn is_parenthesis(word: u64) -> u64 {
    is_zero((word | 0x0101_0101_0101_0101) ^ 0x2929_2929_2929_2929)
}

fn is_zero(word: u64) -> u64 {
    word.wrapping_sub(0x0101_0101_0101_0101) & !word
}

/// Skips a balanced `( … )`; returns the rest.
fn group(text: &[u8]) -> Option<&[u8]> {
    if text.first() != Some(&b'(') {
        return None;
    }
    let mut depth = 0_u32;
    for index in memchr2_iter(b'(', b')', text) {
        if text[index] == b'(' {
            depth += 1;
        } else {
            depth -= 1;
        }
        if depth == 0 {
            return Some(&text[index + 1..]);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rule, byte by byte.
    fn is_operation_slowly(text: &[u8]) -> bool {
        let of_name = |b: &&u8| b.is_ascii_uppercase() || b.is_ascii_digit() || **b == b'_';
        let name = text.iter().take_while(of_name).count();
        name > 0 && !text.iter().any(u8::is_ascii_control) && is_nested(&text[name..])
    }

    proptest! {
        #[test]
        fn an_operation_is_known_by_eight_bytes_as_by_each(
            name in "[A-Z0-9_]{0,9}",
            arguments in "[a-z(),:\\-]{0,20}",
            result in "[:0-9,()-]{0,6}",
            at in 0_usize..40,
            byte: u8,
        ) {
            let mut text = format!("{name}({arguments}){result}").into_bytes();
            prop_assert_eq!(is_operation(&text), is_operation_slowly(&text));
            if let Some(changed) = text.get_mut(at) {
                *changed = byte;
            }
            prop_assert_eq!(is_operation(&text), is_operation_slowly(&text));
        }

        #[test]
        fn control_bytes_and_parentheses_are_found_wherever_they_are(text: Vec<u8>) {
            let control = text.iter().any(u8::is_ascii_control);
            prop_assert_eq!(has_any(&text, is_control), control);
            let parenthesis = text.iter().any(|byte| matches!(byte, b'(' | b')'));
            prop_assert_eq!(has_any(&text, is_parenthesis), parenthesis);
        }

        #[test]
        fn numbers_are_read_as_they_are_printed(value in 0..LIMIT, shift in 0_u32..64, rest in "[^0-9]{0,3}") {
            let text = format!("{}{rest}", value >> shift);
            prop_assert_eq!(number(text.as_bytes()), Some((value >> shift, rest.as_bytes())));
        }

        #[test]
        fn eight_digits_are_nothing_else(text: [u8; 8], digits in "[0-9]{8}", at in 0_usize..8, byte: u8) {
            let plain = |text: &[u8]| std::str::from_utf8(text).ok().filter(|t| t.bytes().all(|b| b.is_ascii_digit()))
                .map(|text| text.parse().unwrap());
            let mut changed: [u8; 8] = digits.as_bytes().try_into().unwrap();
            prop_assert_eq!(eight_digits(changed), plain(&changed));
            changed[at] = byte;
            prop_assert_eq!(eight_digits(changed), plain(&changed));
            prop_assert_eq!(eight_digits(text), plain(&text));
        }
    }
}
