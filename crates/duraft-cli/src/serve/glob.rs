//! Patterns of names, as SCAN MATCH and CONFIG GET take them: `*`, `?`, `[a-z]`, `[^a]`, `\x`.

/// Does the whole text match? Takes time in proportion to the product of the lengths, at most.
pub(crate) fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the last star has to take one byte more.
    let mut star: Option<(usize, usize)> = None;
    loop {
        if p < pattern.len() && pattern[p] == b'*' {
            star = Some((p + 1, t));
            p += 1;
        } else if t == text.len() {
            return p == pattern.len();
        } else if let Some(next) = one(pattern, p, text[t]) {
            p = next;
            t += 1;
        } else if let Some((after, from)) = star {
            star = Some((after, from + 1));
            p = after;
            t = from + 1;
        } else {
            return false;
        }
    }
}

/// Where the pattern goes on behind what matches this byte, if it does.
fn one(pattern: &[u8], at: usize, byte: u8) -> Option<usize> {
    match *pattern.get(at)? {
        b'?' => Some(at + 1),
        b'[' => class(pattern, at + 1, byte),
        b'\\' if at + 1 < pattern.len() => (pattern[at + 1] == byte).then_some(at + 2),
        literal => (literal == byte).then_some(at + 1),
    }
}

fn class(pattern: &[u8], from: usize, byte: u8) -> Option<usize> {
    let negated = pattern.get(from) == Some(&b'^');
    let mut at = from + usize::from(negated);
    let mut found = false;
    while at < pattern.len() && pattern[at] != b']' {
        if pattern[at] == b'\\' && at + 1 < pattern.len() {
            at += 1;
        }
        let low = pattern[at];
        let is_range = pattern.get(at + 1) == Some(&b'-')
            && pattern.get(at + 2).is_some_and(|end| *end != b']');
        let high = if is_range { pattern[at + 2] } else { low };
        found |= (low.min(high)..=low.max(high)).contains(&byte);
        at += if is_range { 3 } else { 1 };
    }
    // A class that is not closed ends with the pattern.
    (found != negated).then_some((at + 1).min(pattern.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_what_they_say() {
        let cases = [
            ("*", "", true),
            ("", "", true),
            ("", "a", false),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "axxbyy", false),
            ("h?llo", "hello", true),
            ("h?llo", "hllo", false),
            ("h[a-e]llo", "hello", true),
            ("h[^e]llo", "hello", false),
            ("h[^a]llo", "hello", true),
            ("h[ae", "he", true),
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("*aa*aa*", "aaaa", true),
            ("*aab", "aaaaaaaab", true),
        ];
        for (pattern, text, expected) in cases {
            let found = matches(pattern.as_bytes(), text.as_bytes());
            assert_eq!(found, expected, "{pattern} {text}");
        }
    }
}
