//! Long messages on a terminal: lines that are broken between words, with a hanging indent.

use std::io::stderr;

use rustix::termios::tcgetwinsize;

/// The width of a terminal that reports none.
const DEFAULT_WIDTH: usize = 80;

/// In a narrower terminal, lines are left to the terminal.
const MIN_WIDTH: usize = 30;

/// The indent of each line but the first.
const INDENT: &str = "  ";

/// The width of the terminal behind standard error.
pub(super) fn stderr_width() -> usize {
    match tcgetwinsize(stderr()) {
        Ok(size) if size.ws_col > 0 => size.ws_col.into(),
        _ => DEFAULT_WIDTH,
    }
}

/// `text` in lines of at most `width` characters. A command in backquotes stays on one line, however
/// long it is, so that it can be copied.
pub(super) fn wrapped(text: &str, width: usize) -> String {
    if width < MIN_WIDTH || text.chars().count() <= width {
        return text.to_owned();
    }
    let mut lines = String::with_capacity(text.len() + 16);
    let mut column = 0;
    for word in words(text) {
        let length = word.chars().count();
        if column > 0 && column + 1 + length > width {
            lines.push('\n');
            lines.push_str(INDENT);
            column = INDENT.len();
        } else if column > 0 {
            lines.push(' ');
            column += 1;
        }
        lines.push_str(word);
        column += length;
    }
    lines
}

/// The words of a text; a quoted command counts as one word.
fn words(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start_matches(' ');
        if rest.is_empty() {
            return None;
        }
        let first = rest.find(' ').unwrap_or(rest.len());
        let end = quoted_end(rest).unwrap_or(first);
        let (word, behind) = rest.split_at(end);
        rest = behind;
        Some(word)
    })
}

/// The end of the quoted command with which `text` begins, with the punctuation behind it.
fn quoted_end(text: &str) -> Option<usize> {
    let close = text.strip_prefix('`')?.find('`')? + 2;
    let behind = text[close..].find(' ');
    Some(behind.map_or(text.len(), |space| close + space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_is_broken_between_words_and_a_command_is_kept_together() {
        let text = "haul: ls: no server is known; run `haul connect haul://u@h:9000`, once";
        assert_eq!(
            wrapped(text, 40),
            "haul: ls: no server is known; run\n  `haul connect haul://u@h:9000`, once"
        );
        assert_eq!(wrapped(text, 100), text);
        assert_eq!(wrapped(text, 10), text);
    }

    #[test]
    fn a_word_that_fits_no_line_is_not_broken() {
        let long = "x".repeat(50);
        assert_eq!(
            wrapped(&format!("a {long} b"), 30),
            format!("a\n  {long}\n  b")
        );
        let quoted = format!("see `{long} {long}`");
        assert_eq!(wrapped(&quoted, 40).lines().count(), 2);
    }
}
