//! Patterns of names: `*`, `?` and `[...]`, with a backslash before a character that stands for
//! itself.

/// The characters that a backslash quotes.
const SPECIAL: [char; 5] = ['*', '?', '[', ']', '\\'];

/// A pattern for one component of a path.
#[derive(Debug)]
pub(super) struct NamePattern {
    parts: Vec<PatternPart>,
}

#[derive(Debug)]
enum PatternPart {
    Literal(char),
    AnyChar,
    AnyText,
    Class {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl NamePattern {
    /// The pattern in `text`, or `None` if `text` has no wildcard.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let chars: Vec<_> = text.chars().collect();
        let mut parts = Vec::new();
        let mut index = 0;
        while let Some(&c) = chars.get(index) {
            index += 1;
            parts.push(match c {
                '*' => PatternPart::AnyText,
                '?' => PatternPart::AnyChar,
                '[' => match class(&chars[index..]) {
                    Some((class, length)) => {
                        index += length;
                        class
                    }
                    None => PatternPart::Literal('['),
                },
                '\\' if chars.get(index).is_some_and(|next| SPECIAL.contains(next)) => {
                    index += 1;
                    PatternPart::Literal(chars[index - 1])
                }
                c => PatternPart::Literal(c),
            });
        }
        let is_literal = |part: &PatternPart| matches!(part, PatternPart::Literal(_));
        (!parts.iter().all(is_literal)).then_some(Self { parts })
    }

    /// Whether the pattern matches all of `name`. A hidden name needs a pattern that begins with a
    /// dot. The time is at most the product of both lengths.
    pub(super) fn matches(&self, name: &str) -> bool {
        if name.starts_with('.') && !matches!(self.parts.first(), Some(PatternPart::Literal('.'))) {
            return false;
        }
        self.matches_hidden(name)
    }

    /// As [`matches`](Self::matches), where hidden names are as others.
    pub(super) fn matches_hidden(&self, name: &str) -> bool {
        let name: Vec<_> = name.chars().collect();
        let (mut part, mut at) = (0, 0);
        // The last `*`, and the end of the text that it matches so far.
        let mut retry = None;
        loop {
            match (self.parts.get(part), name.get(at)) {
                (None, None) => return true,
                (Some(PatternPart::AnyText), _) => {
                    part += 1;
                    retry = Some((part, at));
                    continue;
                }
                (Some(expected), Some(&c)) if expected.matches(c) => {
                    part += 1;
                    at += 1;
                    continue;
                }
                _ => {}
            }
            match retry {
                Some((after, end)) if end < name.len() => {
                    retry = Some((after, end + 1));
                    (part, at) = (after, end + 1);
                }
                _ => return false,
            }
        }
    }
}

impl PatternPart {
    fn matches(&self, c: char) -> bool {
        match self {
            Self::Literal(expected) => *expected == c,
            Self::AnyChar | Self::AnyText => true,
            Self::Class { negated, ranges } => {
                let is_in = ranges.iter().any(|(from, to)| (*from..=*to).contains(&c));
                is_in != *negated
            }
        }
    }
}

/// The class that begins after `[`, with the number of its characters; `None` if it has no end.
fn class(chars: &[char]) -> Option<(PatternPart, usize)> {
    let negated = matches!(chars.first(), Some('!' | '^'));
    let start = usize::from(negated);
    let mut ranges = Vec::new();
    let mut index = start;
    loop {
        let c = *chars.get(index)?;
        if c == ']' && index > start {
            return Some((PatternPart::Class { negated, ranges }, index + 1));
        }
        let (from, next) = class_char(chars, index)?;
        index = next;
        let is_range = chars.get(index) == Some(&'-');
        if is_range && chars.get(index + 1).is_some_and(|end| *end != ']') {
            let (to, next) = class_char(chars, index + 1)?;
            index = next;
            ranges.push((from, to));
        } else {
            ranges.push((from, from));
        }
    }
}

/// The character at `index` in a class, and the index after it.
fn class_char(chars: &[char], index: usize) -> Option<(char, usize)> {
    match (*chars.get(index)?, chars.get(index + 1)) {
        ('\\', Some(quoted)) => Some((*quoted, index + 2)),
        (c, _) => Some((c, index + 1)),
    }
}

/// `text` without the backslashes that quote special characters.
pub(super) fn unquoted(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, chars.peek()) {
            ('\\', Some(next)) if SPECIAL.contains(next) => plain.extend(chars.next()),
            _ => plain.push(c),
        }
    }
    plain
}

/// Adds `c` to a pattern so that it stands for itself.
pub(super) fn push_quoted(pattern: &mut String, c: char) {
    if SPECIAL.contains(&c) {
        pattern.push('\\');
    }
    pattern.push(c);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_names_as_in_a_shell() {
        for (pattern, matching, other) in [
            (
                "*.txt",
                &["a.txt", "ü.txt"][..],
                &["a.md", ".txt", "a.txt.gz"][..],
            ),
            ("a*b*c", &["abc", "aXbYc", "abbcc"], &["ab", "acb"]),
            ("?", &["a", "ü"], &["ab", "", "."]),
            ("[a-c]1", &["a1", "c1"], &["d1", "a2"]),
            ("[!a-c]*", &["d", "dd"], &["a", "bd"]),
            ("[]-]*", &["]", "-x"], &["x"]),
            (".*", &[".a", ".."], &["a"]),
            (r"a\*?", &["a*b"], &["aXb"]),
            (r"[\]]?", &["]a"], &["a]"]),
        ] {
            let parsed = NamePattern::parse(pattern).expect(pattern);
            for name in matching {
                assert!(parsed.matches(name), "{pattern} {name}");
            }
            for name in other {
                assert!(!parsed.matches(name), "{pattern} {name}");
            }
        }
    }

    #[test]
    fn a_name_without_wildcards_is_no_pattern() {
        for (text, name) in [
            ("a", "a"),
            (r"a\*b", "a*b"),
            (r"\[1\]", "[1]"),
            (r"a\b", r"a\b"),
            (r"a\\b", r"a\b"),
            ("a[b", "a[b"),
        ] {
            assert!(NamePattern::parse(text).is_none(), "{text}");
            assert_eq!(unquoted(text), name);
        }
    }

    #[test]
    fn many_stars_take_no_exponential_time() {
        let pattern = NamePattern::parse(&"*a".repeat(60)).expect("a pattern");
        assert!(!pattern.matches(&("a".repeat(200) + "b")));
    }

    proptest::proptest! {
        #[test]
        fn a_quoted_name_stands_for_itself(name: String) {
            let mut quoted = String::new();
            name.chars().for_each(|c| push_quoted(&mut quoted, c));
            assert!(NamePattern::parse(&quoted).is_none());
            assert_eq!(unquoted(&quoted), name);
        }

        #[test]
        fn every_text_is_a_pattern_or_a_name(text: String, name: String) {
            if let Some(pattern) = NamePattern::parse(&text) {
                pattern.matches(&name);
            }
        }
    }
}
