//! Messages, offers and changes, as people read them.

use std::hash::{DefaultHasher, Hash, Hasher};

use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

use crate::cli::output::{Output, safe, size};
use crate::protocol::{ChangeKind, Changed, Message, Offer};

/// Lines of one message that are shown.
const LINES: usize = 40;

/// The colours of names, as SGR codes: those that are read on dark and on light grounds.
const COLOURS: [u8; 8] = [36, 32, 35, 34, 31, 96, 95, 94];

const DIM: u8 = 2;

/// Whether a person reads who has not asked for no colours.
pub(crate) fn in_colour(output: Output) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    output.terminal && !set("NO_COLOR") && !dumb
}

/// How it is shown, and to whom.
#[derive(Debug, Clone)]
pub(crate) struct Style {
    colour: bool,
    /// The user who reads.
    me: String,
}

impl Style {
    /// In colours, if a person reads and has not asked for none (<https://no-color.org>).
    pub(crate) fn new(output: Output, me: &str) -> Self {
        Self {
            colour: in_colour(output),
            me: me.to_owned(),
        }
    }

    /// `12:01 bob: hi`. Where it is not said `with` whom the reader talks to, to whom it was.
    pub(crate) fn message(&self, message: &Message, with: Option<&str>) -> String {
        let Message { from, to, .. } = message;
        let is_between = with.is_some_and(|with| {
            to == with || (from == with && *to == self.me) || (*from == self.me && *to == self.me)
        });
        let to = if is_between {
            String::new()
        } else if *to == self.me {
            " to you".to_owned()
        } else if to.starts_with('#') {
            format!(" in {}", self.name(to))
        } else {
            format!(" to {}", self.name(to))
        };
        let when = self.time(message.time);
        format!("{when} {}{to}: {}", self.name(from), text(&message.text))
    }

    /// `bob offers report.pdf (79.3 KiB); …`
    pub(crate) fn offer(&self, offer: &Offer, accept: &str, decline: &str) -> String {
        let id = safe(&offer.offer);
        format!(
            "{} offers {} ({}); `{accept} {id}` accepts it, `{decline} {id}` declines it",
            self.name(&offer.from),
            safe(&offer.path),
            size(offer.size),
        )
    }

    /// `12:01:07 written /team/a.csv by bob`
    pub(crate) fn change(&self, changed: &Changed) -> String {
        let now = Zoned::now().strftime("%H:%M:%S").to_string();
        let path = safe(&changed.path);
        let by = changed.by.as_ref();
        let by = by.map_or(String::new(), |by| format!(" by {}", self.name(by)));
        let what = match (changed.kind, &changed.from) {
            (ChangeKind::Overflow, _) => {
                format!(
                    "overflow {path}: the server could not report all changes; read the directory again"
                )
            }
            (ChangeKind::Moved, Some(from)) => format!("moved {} → {path}", safe(from)),
            (kind, _) => format!("{} {path}", word(kind)),
        };
        format!("{} {what}{by}", self.paint(DIM, &now))
    }

    /// A user or a room, always in the same colour.
    pub(crate) fn name(&self, name: &str) -> String {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let number = usize::try_from(hasher.finish() % COLOURS.len() as u64).unwrap_or(0);
        self.paint(COLOURS[number], &safe(name))
    }

    /// What is said by the program and nobody else.
    pub(crate) fn aside(&self, text: &str) -> String {
        self.paint(DIM, &safe(text))
    }

    fn time(&self, time: Timestamp) -> String {
        let zoned = time.to_zoned(TimeZone::system());
        let format = if zoned.date() == Zoned::now().date() {
            "%H:%M"
        } else {
            "%Y-%m-%d %H:%M"
        };
        self.paint(DIM, &zoned.strftime(format).to_string())
    }

    fn paint(&self, code: u8, text: &str) -> String {
        if self.colour {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

fn word(kind: ChangeKind) -> &'static str {
    match kind {
        ChangeKind::Written => "written",
        ChangeKind::Removed => "removed",
        ChangeKind::Moved => "moved",
        ChangeKind::Made => "made",
        _ => "changed",
    }
}

/// A text whose further lines are indented, so that none can pass for another message.
fn text(text: &str) -> String {
    let text = text.trim_end_matches('\n').replace("\r\n", "\n");
    let mut lines: Vec<_> = text.split('\n').take(LINES).map(safe).collect();
    let more = text.split('\n').count() - lines.len();
    if more > 0 {
        lines.push(format!("… and {more} lines more").into());
    }
    lines.join("\n      ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Style {
        Style {
            colour: false,
            me: "alice".into(),
        }
    }

    fn message(from: &str, to: &str, text: &str) -> Message {
        Message {
            seq: 1,
            from: from.into(),
            to: to.into(),
            text: text.into(),
            time: "2020-02-02T12:00:00Z".parse().expect("a time"),
        }
    }

    fn shown(message: &Message, with: Option<&str>) -> String {
        let shown = plain().message(message, with);
        // The day and the time depend on where this runs.
        shown
            .splitn(3, ' ')
            .nth(2)
            .expect("a time first")
            .to_owned()
    }

    #[test]
    fn to_whom_it_was_said_is_told_unless_it_is_the_conversation() {
        for (from, to, with, expected) in [
            ("bob", "alice", Some("bob"), "bob: hi"),
            ("alice", "bob", Some("bob"), "alice: hi"),
            ("bob", "#ops", Some("#ops"), "bob: hi"),
            ("bob", "#ops", Some("bob"), "bob in #ops: hi"),
            ("carol", "alice", Some("bob"), "carol to you: hi"),
            ("bob", "alice", None, "bob to you: hi"),
            ("alice", "carol", Some("bob"), "alice to carol: hi"),
        ] {
            assert_eq!(shown(&message(from, to, "hi"), with), expected);
        }
    }

    #[test]
    fn a_text_can_neither_drive_the_terminal_nor_pass_for_another_message() {
        let hostile = message(
            "bob\x1b[2J",
            "alice",
            "a\x1b]0;title\x07\r\n12:00 carol: b\rc\u{202e}\n",
        );
        assert_eq!(
            shown(&hostile, None),
            "bob\\u{1b}[2J to you: a\\u{1b}]0;title\\u{7}\n      12:00 carol: b\\rc\\u{202e}"
        );
        let long = message("bob", "alice", &"x\n".repeat(8000));
        assert_eq!(shown(&long, None).lines().count(), LINES + 1);
        assert!(shown(&long, None).ends_with("… and 7960 lines more"));
    }

    #[test]
    fn offers_and_changes_cannot_drive_the_terminal() {
        let offer = Offer {
            seq: 1,
            from: "bob".into(),
            to: None,
            path: "a\x1b[31m.pdf".into(),
            size: 2048,
            offer: "7\x07".into(),
            expires: Timestamp::UNIX_EPOCH,
        };
        assert_eq!(
            plain().offer(&offer, "/accept", "/decline"),
            "bob offers a\\u{1b}[31m.pdf (2.0 KiB); `/accept 7\\u{7}` accepts it, `/decline 7\\u{7}` declines it"
        );
        let changed = |kind, from: Option<&str>| {
            let by = (kind != ChangeKind::Overflow).then(|| "bob\n".into());
            let shown = plain().change(&Changed {
                seq: 1,
                path: "/team/a\x1bb".into(),
                kind,
                from: from.map(Into::into),
                by,
            });
            shown.split_once(' ').expect("a time first").1.to_owned()
        };
        assert_eq!(
            changed(ChangeKind::Written, None),
            "written /team/a\\u{1b}b by bob\\n"
        );
        assert_eq!(
            changed(ChangeKind::Moved, Some("/x\ty")),
            "moved /x\\ty → /team/a\\u{1b}b by bob\\n"
        );
        assert_eq!(
            changed(ChangeKind::Overflow, None),
            "overflow /team/a\\u{1b}b: the server could not report all changes; read the directory again"
        );
    }

    #[test]
    fn a_name_has_its_colour_and_nothing_is_left_of_it_behind() {
        let style = Style {
            colour: true,
            ..plain()
        };
        let bob = style.name("bob");
        assert_eq!(bob, style.name("bob"));
        assert!(
            bob.starts_with("\x1b[") && bob.ends_with("mbob\x1b[0m"),
            "{bob:?}"
        );
        assert_eq!(plain().name("bob"), "bob");
    }
}
