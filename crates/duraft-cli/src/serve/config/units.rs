//! Sizes, times and text as they are written in the file.

use std::time::Duration;

const SIZES: [(&str, u64); 5] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("B", 1),
];
const TIMES: [(&str, u64); 5] = [
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("ms", 1_000),
    ("us", 1),
    ("s", 1_000_000),
];

fn number_and_unit(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit());
    let (number, unit) = text.split_at(end.unwrap_or(text.len()));
    (number, unit.trim())
}

/// `65536`, `64KiB`, `64 KiB`; whole numbers only, and no units that could mean two things.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(text.trim());
    let number: u64 = number.parse().ok()?;
    let unit = if unit.is_empty() { "B" } else { unit };
    let (_, size) = SIZES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*size)
}

/// `250ms`, `10s`, `5min`; the unit must be there.
pub(super) fn time(text: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(text.trim());
    let number: u64 = number.parse().ok()?;
    let (_, micros) = TIMES.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*micros).map(Duration::from_micros)
}

pub(super) fn show_bytes(bytes: u64) -> String {
    let fits = |size: u64| bytes >= size && bytes.is_multiple_of(size);
    match SIZES.iter().find(|(_, size)| fits(*size)) {
        Some((name, size)) => format!("{} {name}", bytes / size),
        None => "0 B".into(),
    }
}

pub(super) fn show_time(time: Duration) -> String {
    let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
    let mut units = TIMES;
    units.sort_by_key(|(_, size)| std::cmp::Reverse(*size));
    let fits = |size: u64| micros >= size && micros.is_multiple_of(size);
    match units.iter().find(|(_, size)| fits(*size)) {
        Some((name, size)) => format!("{}{name}", micros / size),
        None => "0s".into(),
    }
}

/// As a string of TOML.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_read_back_as_they_are_shown() {
        for n in [1, 1023, 1024, 65536, 3 << 20, 5 << 40, (1 << 20) + 1] {
            assert_eq!(bytes(&show_bytes(n)), Some(n));
            let t = Duration::from_micros(n);
            assert_eq!(time(&show_time(t)), Some(t));
        }
        assert_eq!(bytes("64 KiB"), Some(65536));
        assert_eq!(bytes("64KB"), None, "a thousand or 1024: nobody knows");
        assert_eq!(time("10"), None, "seconds or milliseconds: nobody knows");
        assert_eq!(bytes("99999999999999999999 GiB"), None);
        assert_eq!(bytes("17179869184 GiB"), None, "it does not wrap around");
        assert_eq!(quoted("a\"b\\\n"), "\"a\\\"b\\\\\\u000a\"");
    }
}
