//! The words of a line that a person typed. Pure.

/// A line ends within quotes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a quote is not closed; put names with spaces in double quotes")]
pub(crate) struct OpenQuote;

/// The words of a line. A word ends at a space outside of double quotes, which are left out.
pub(crate) fn split(mut line: &str) -> Result<Vec<String>, OpenQuote> {
    let mut words = Vec::new();
    while let Some((word, rest)) = word(line)? {
        words.push(word);
        line = rest;
    }
    Ok(words)
}

/// The first word of a line, and the text after it.
pub(crate) fn word(line: &str) -> Result<Option<(String, &str)>, OpenQuote> {
    let line = line.trim_ascii_start();
    if line.is_empty() {
        return Ok(None);
    }
    let (mut word, mut quoted) = (String::new(), false);
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            // No other space separates: names may have them.
            c if c.is_ascii_whitespace() && !quoted => return Ok(Some((word, &line[at..]))),
            c => word.push(c),
        }
    }
    if quoted {
        return Err(OpenQuote);
    }
    Ok(Some((word, "")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn words_end_at_spaces_outside_of_quotes() {
        for (line, words) in [
            ("", &[][..]),
            (" \t\r\n", &[]),
            ("ls", &["ls"]),
            ("  a \t b\n", &["a", "b"]),
            ("\"a b\" c", &["a b", "c"]),
            ("a\" b\"c", &["a bc"]),
            ("\"\" x", &["", "x"]),
            ("\"年度 报告\" 第　一", &["年度 报告", "第　一"]),
            ("C:\\a\\ \"D:\\b c\\\"", &["C:\\a\\", "D:\\b c\\"]),
        ] {
            assert_eq!(split(line).expect(line), words, "{line}");
        }
        for line in ["\"", "a \"b", "\"a\" \"b c"] {
            assert_eq!(split(line), Err(OpenQuote), "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_line_makes_the_splitter_panic_or_invent_anything(line: String) {
            if let Ok(words) = split(&line) {
                let all = words.concat();
                let wanted = |c: &char| *c != '"';
                let kept: String = line.chars().filter(wanted).collect();
                let mut rest = kept.chars();
                prop_assert!(all.chars().all(|c| rest.any(|other| other == c)));
            }
        }

        #[test]
        fn words_in_quotes_come_out_as_they_went_in(
            words in prop::collection::vec("[^\"]{0,20}", 0..6),
        ) {
            let line: Vec<_> = words.iter().map(|word| format!("\"{word}\"")).collect();
            prop_assert_eq!(split(&line.join(" ")), Ok(words));
        }
    }
}
