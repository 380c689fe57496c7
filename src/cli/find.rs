//! `haul find`

use std::io::Write;
use std::str::FromStr;

use clap::{Args, ValueEnum};
use jiff::Timestamp;

use crate::cli::output::{Output, safe};
use crate::cli::remote_session::RemoteSession;
use crate::cli::tree_lines::{ListingVisitor, shown_path, visit_trees};
use crate::cli::wildcards::{NamePattern, unquoted};
use crate::protocol::{Entry, Kind};

/// Options that may be written with one dash, as for find.
const ONE_DASH: [&str; 6] = ["-name", "-type", "-size", "-mtime", "-maxdepth", "-print0"];

/// Find files and directories by name, kind, size or age
///
/// Prints the paths below each PATH that meet all conditions. The options may be written with one dash, as
/// for find. N of a size is a number of bytes, or of KiB, MiB or GiB with `k`, `M` or `G`; `+N` means more,
/// and `-N` less.
#[derive(Debug, Args)]
pub(super) struct FindArgs {
    /// Directories; the default is the current directory
    #[arg(value_name = "PATH")]
    paths: Vec<String>,
    /// Names that match, such as `'*.txt'`
    #[arg(long, value_name = "PATTERN")]
    name: Option<String>,
    /// Only files (f) or only directories (d)
    #[arg(long = "type", value_name = "f|d")]
    kind: Option<FoundKind>,
    /// Files of this size, such as `+100M`
    #[arg(long, value_name = "[+-]N", allow_hyphen_values = true)]
    size: Option<SizeCondition>,
    /// Entries last changed N days ago, such as `-7`
    #[arg(long, value_name = "[+-]N", allow_hyphen_values = true)]
    mtime: Option<NumberCondition>,
    /// Entries at most N levels below PATH
    #[arg(long, value_name = "N")]
    maxdepth: Option<usize>,
    /// End each path with a zero byte, for `xargs -0`
    #[arg(long)]
    print0: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FoundKind {
    /// Files
    F,
    /// Directories
    D,
}

/// A number that is compared: `+N` is more, `-N` less.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NumberCondition {
    More(u64),
    Less(u64),
    Equal(u64),
}

impl NumberCondition {
    fn holds(self, number: u64) -> bool {
        match self {
            Self::More(than) => number > than,
            Self::Less(than) => number < than,
            Self::Equal(to) => number == to,
        }
    }
}

impl FromStr for NumberCondition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (make, digits): (fn(u64) -> Self, _) = match text.as_bytes() {
            [b'+', ..] => (Self::More, &text[1..]),
            [b'-', ..] => (Self::Less, &text[1..]),
            _ => (Self::Equal, text),
        };
        let number = digits
            .parse()
            .map_err(|_| "expected a number, such as 7, +7 or -7")?;
        Ok(make(number))
    }
}

/// A number of units of so many bytes; sizes are rounded up to whole units, as by find.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct SizeCondition {
    comparison: NumberCondition,
    unit: u64,
}

impl FromStr for SizeCondition {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let units = [("c", 1), ("k", 1 << 10), ("M", 1 << 20), ("G", 1 << 30)];
        let unit = units.into_iter().find(|(suffix, _)| text.ends_with(suffix));
        let (number, unit) = match unit {
            Some((suffix, unit)) => (&text[..text.len() - suffix.len()], unit),
            None => (text, 1),
        };
        let comparison = number
            .parse()
            .map_err(|_| "expected a size, such as 100, +10k or -1M")?;
        Ok(Self { comparison, unit })
    }
}

/// The words of a line, with two dashes where an option of `find` has one.
pub(super) fn with_long_options(
    words: impl Iterator<Item = String>,
) -> impl Iterator<Item = String> {
    words.map(|word| {
        let name = word.split('=').next().unwrap_or_default();
        if ONE_DASH.contains(&name) {
            format!("-{word}")
        } else {
            word
        }
    })
}

impl FindArgs {
    pub(super) async fn run(self, remote: &RemoteSession) -> anyhow::Result<()> {
        let name = self.name.as_deref();
        let mut printer = MatchPrinter {
            output: remote.output,
            pattern: name.and_then(NamePattern::parse),
            literal: name.map(unquoted),
            now: Timestamp::now(),
            conditions: &self,
        };
        visit_trees(remote, "find", &self.paths, &mut printer).await
    }
}

struct MatchPrinter<'a> {
    output: Output,
    pattern: Option<NamePattern>,
    /// The name, if it is no pattern.
    literal: Option<String>,
    now: Timestamp,
    conditions: &'a FindArgs,
}

impl MatchPrinter<'_> {
    fn matches(&self, name: &str, entry: &Entry) -> bool {
        let conditions = self.conditions;
        let has_name = match (&self.pattern, &self.literal) {
            (Some(pattern), _) => pattern.matches_hidden(name),
            (None, Some(literal)) => literal == name,
            (None, None) => true,
        };
        let has_kind = match conditions.kind {
            Some(FoundKind::F) => entry.kind == Kind::File,
            Some(FoundKind::D) => entry.kind == Kind::Dir,
            None => true,
        };
        let has_size = conditions.size.is_none_or(|size| {
            entry.kind == Kind::File && size.comparison.holds(entry.size.div_ceil(size.unit))
        });
        let age = self
            .now
            .as_second()
            .saturating_sub(entry.modified.as_second());
        let days = u64::try_from(age / 86_400).unwrap_or(0);
        has_name && has_kind && has_size && conditions.mtime.is_none_or(|mtime| mtime.holds(days))
    }
}

impl ListingVisitor for MatchPrinter<'_> {
    fn begin(&mut self, _path: &str, _entry: &Entry) -> anyhow::Result<()> {
        Ok(())
    }

    fn visit(&mut self, root: &str, entry: &Entry) -> anyhow::Result<()> {
        let depth = entry.name.split('/').count();
        let name = entry.name.rsplit('/').next().unwrap_or_default();
        if self.conditions.maxdepth.is_some_and(|max| depth > max) || !self.matches(name, entry) {
            return Ok(());
        }
        let path = shown_path(root, &entry.name);
        if self.conditions.print0 {
            // A program reads it, which needs the name as it is.
            std::io::stdout().write_all(format!("{path}\0").as_bytes())?;
            return Ok(());
        }
        let entry = Entry {
            name: path,
            ..entry.clone()
        };
        self.output
            .result(&entry, |entry| safe(&entry.name).into_owned())
    }

    fn end(&mut self, _path: &str) -> anyhow::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_sizes_are_compared_as_find_does() {
        let size = |text: &str| text.parse::<SizeCondition>().expect("a size");
        for (text, bytes, expected) in [
            ("+1k", 1024, false),
            ("+1k", 1025, true),
            ("-2k", 1024, true),
            ("-2k", 1025, false),
            ("1M", 1, true),
            ("100", 100, true),
            ("100c", 101, false),
        ] {
            let condition = size(text);
            let holds = condition
                .comparison
                .holds(u64::div_ceil(bytes, condition.unit));
            assert_eq!(holds, expected, "{text} {bytes}");
        }
        for text in ["", "+", "k", "1T", "--1"] {
            assert!(text.parse::<SizeCondition>().is_err(), "{text}");
        }
    }

    #[test]
    fn options_may_have_one_dash() {
        let words = ["find", "-name", "*.txt", "-size=+1k", "-n", "--type", "f"];
        let long: Vec<_> = with_long_options(words.map(str::to_owned).into_iter()).collect();
        let expected = ["find", "--name", "*.txt", "--size=+1k", "-n", "--type", "f"];
        assert_eq!(long, expected);
    }
}
