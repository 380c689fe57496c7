//! A line cut into words, with quotes and backslashes as in other shells.

use crate::cli::wildcards::push_quoted;

/// A word of a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// Where it begins in the line, its quote included.
    pub(crate) start: usize,
    /// Its meaning, without quotes and backslashes.
    pub(crate) text: String,
    /// The same as a pattern, in which quoted wildcards stand for themselves.
    pub(crate) pattern: String,
    /// Whether it, or the line, ended within quotes or behind a backslash.
    pub(crate) is_open: bool,
}

impl Word {
    fn push_quoted(&mut self, c: char) {
        self.text.push(c);
        push_quoted(&mut self.pattern, c);
    }
}

/// The words of a line, of which the last may be unfinished.
pub(crate) fn words(line: &str) -> Vec<Word> {
    let mut words = Vec::new();
    let mut chars = line.char_indices().peekable();
    while let Some(&(start, first)) = chars.peek() {
        if first.is_whitespace() {
            chars.next();
            continue;
        }
        let mut word = Word {
            start,
            text: String::new(),
            pattern: String::new(),
            is_open: false,
        };
        let mut quote = None;
        while let Some(&(_, c)) = chars.peek() {
            if quote.is_none() && c.is_whitespace() {
                break;
            }
            chars.next();
            match (c, quote) {
                ('\'' | '"', None) => quote = Some(c),
                (c, Some(mark)) if c == mark => quote = None,
                ('\\', None | Some('"')) => match chars.next() {
                    Some((_, escaped)) => word.push_quoted(escaped),
                    None => word.is_open = true,
                },
                (c, Some(_)) => word.push_quoted(c),
                (c, None) => {
                    word.text.push(c);
                    word.pattern.push(c);
                }
            }
        }
        word.is_open |= quote.is_some();
        words.push(word);
    }
    words
}

/// Commands that take the name of a room, which begins with a `#` too.
const TALK: [&str; 5] = ["say", "history", "join", "leave", "chat"];

/// Commands whose paths may have wildcards.
const PATTERNS: [&str; 9] = ["ls", "get", "rm", "mv", "cp", "cat", "find", "tree", "du"];

/// The words of a line that is complete; nothing behind a `#` that begins a word, unless it begins
/// the name of a room.
pub(crate) fn split(line: &str) -> Result<Vec<String>, &'static str> {
    let mut split = Vec::<String>::new();
    for word in words(line) {
        let takes_room = split.first().is_some_and(|first| TALK.contains(&&**first));
        if let Some(behind) = line[word.start..].strip_prefix('#')
            && !(takes_room && behind.starts_with(|c: char| !c.is_whitespace()))
        {
            break;
        }
        if word.is_open {
            return Err("a quote is not closed");
        }
        let takes_patterns = split
            .first()
            .is_some_and(|first| PATTERNS.contains(&&**first));
        split.push(if takes_patterns {
            word.pattern
        } else {
            word.text
        });
    }
    Ok(split)
}

/// The text with backslashes, so that it reads back as one word.
pub(crate) fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for c in text.chars() {
        if c.is_whitespace() || matches!(c, '"' | '\'' | '\\' | '#' | '*' | '?' | '[' | ']') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// A quote, and the text so that it reads back within it. The quote is not closed.
pub(crate) fn quoted(text: &str) -> String {
    let mut quoted = String::from('"');
    for c in text.chars() {
        if matches!(c, '"' | '\\') {
            quoted.push('\\');
        }
        quoted.push(c);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn quotes_and_backslashes_keep_words_together() {
        let words = split(r#"put "my file" 'an"other' a\ b "\"" c"d e"f"#).expect("closed");
        assert_eq!(words, ["put", "my file", "an\"other", "a b", "\"", "cd ef"]);
        assert_eq!(split("").expect("closed"), Vec::<String>::new());
        assert_eq!(split("rm ''").expect("closed"), ["rm", ""]);
    }

    #[test]
    fn a_quoted_wildcard_stands_for_itself_where_patterns_are_taken() {
        for (line, last) in [
            ("rm *.txt", "*.txt"),
            ("rm '*.txt'", r"\*.txt"),
            (r"rm a\*b*", r"a\*b*"),
            ("rm \"[1]\"", r"\[1\]"),
            ("put '*.txt'", "*.txt"),
        ] {
            let words = split(line).expect("closed");
            assert_eq!(words[1], last, "{line}");
        }
    }

    #[test]
    fn a_comment_ends_the_line() {
        assert_eq!(split("ls # it's all").expect("closed"), ["ls"]);
        assert_eq!(split("ls a#b").expect("closed"), ["ls", "a#b"]);
    }

    #[test]
    fn a_room_is_no_comment_behind_a_command_that_takes_one() {
        assert_eq!(split("join #ops").expect("closed"), ["join", "#ops"]);
        assert_eq!(
            split("say #ops hi #1 # x").expect("closed"),
            ["say", "#ops", "hi", "#1"]
        );
        assert_eq!(split("leave '#ops' #").expect("closed"), ["leave", "#ops"]);
        assert_eq!(split("ls #ops").expect("closed"), ["ls"]);
        assert_eq!(split("#say #ops").expect("closed"), Vec::<String>::new());
    }

    #[test]
    fn a_quote_that_is_not_closed_is_refused() {
        for line in ["ls \"a", "ls 'a", "ls a\\"] {
            assert!(split(line).is_err(), "{line}");
        }
    }

    proptest! {
        #[test]
        fn what_is_quoted_reads_back(text: String) {
            let line = format!("{}\"", quoted(&text));
            prop_assert_eq!(split(&line), Ok(vec![text]));
        }

        #[test]
        fn what_is_escaped_reads_back(text in ".+") {
            prop_assert_eq!(split(&escaped(&text)), Ok(vec![text]));
        }

        #[test]
        fn any_line_can_be_cut(line: String) {
            for word in words(&line) {
                prop_assert!(line.is_char_boundary(word.start));
            }
        }
    }
}
