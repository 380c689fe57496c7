//! The meaning of a line that was typed in a chat.

use std::num::NonZeroU32;

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ChatCommand {
    Nothing,
    Leave,
    Say {
        to: String,
        text: String,
    },
    File {
        to: String,
        path: String,
    },
    Accept {
        offer: Option<String>,
        path: Option<String>,
    },
    Decline {
        offer: Option<String>,
    },
    Offers,
    Who,
    History {
        with: String,
        limit: NonZeroU32,
    },
    Help,
    /// It cannot be meant like this; says what would be right.
    Wrong(String),
}

/// Messages that `/history` shows unless it is told how many.
pub(crate) const HISTORY: NonZeroU32 = NonZeroU32::new(50).expect("not 0");

/// What is shown for `/help`.
pub(crate) const HELP: &str = "\
/file PATH             offer a local file, or :PATH on the server
/file @USER PATH       the same in a room or without a receiver
/offers                list the files offered to you, with their numbers
/accept [N] [PATH]     accept the only offer or number N, and save it as PATH
/decline [N]           decline the only offer or number N
/who                   list the connected users
/history [COUNT]       show earlier messages
//text                 send a text that begins with a slash
q, /quit or Ctrl-D     end the chat";

impl ChatCommand {
    /// Of a chat `with` someone, or with nobody in particular: then a line says whom it is for.
    pub(crate) fn parse(line: &str, with: Option<&str>) -> Self {
        let line = line.trim();
        if line.is_empty() {
            return Self::Nothing;
        }
        if line == "q" {
            return Self::Leave;
        }
        if let Some(text) = line.strip_prefix('/').filter(|text| text.starts_with('/')) {
            return Self::say(text, with);
        }
        match line.strip_prefix('/') {
            Some(command) => Self::command(command, with),
            None => Self::say(line, with),
        }
    }

    fn say(line: &str, with: Option<&str>) -> Self {
        match addressed(line, with) {
            Some((to, text)) if !text.is_empty() => Self::Say {
                to,
                text: text.to_owned(),
            },
            Some((to, _)) => Self::Wrong(format!("the message to {to} has no text")),
            None => Self::Wrong("the receiver is missing; write `@bob text` or `#ops text`".into()),
        }
    }

    fn command(command: &str, with: Option<&str>) -> Self {
        let (name, rest) = cut(command);
        let word = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        match name {
            "q" | "quit" | "exit" | "bye" => Self::Leave,
            "help" | "h" | "?" => Self::Help,
            "who" => Self::Who,
            "offers" => Self::Offers,
            "accept" => {
                let (offer, path) = cut(rest);
                Self::Accept {
                    offer: word(offer),
                    path: word(path),
                }
            }
            "decline" => Self::Decline { offer: word(rest) },
            // In a room, a file is for one user.
            "file" => match addressed(rest, with.filter(|with| !with.starts_with('#'))) {
                Some((to, _)) if to.starts_with('#') => {
                    Self::Wrong("a file can be offered to a user, not to a room".into())
                }
                Some((to, path)) if !path.is_empty() => Self::File {
                    to,
                    path: path.to_owned(),
                },
                Some(_) => Self::Wrong("the file is missing; write `/file PATH`".into()),
                None => Self::Wrong("the receiver is missing; write `/file @bob PATH`".into()),
            },
            "history" => match addressed(rest, with) {
                None => Self::Wrong(
                    "the conversation is missing; write `/history @bob` or `/history #ops`".into(),
                ),
                Some((with, "")) => Self::History {
                    with,
                    limit: HISTORY,
                },
                Some((with, count)) => match count.parse() {
                    Ok(limit) => Self::History { with, limit },
                    Err(_) => Self::Wrong(format!(
                        "`/history` needs a number of messages, not {count:?}"
                    )),
                },
            },
            _ => Self::Wrong(format!(
                "there is no command /{name}; `/help` lists the commands, and `//` begins a text with a slash"
            )),
        }
    }
}

/// Whom something is for, and the rest.
fn addressed<'a>(text: &'a str, with: Option<&str>) -> Option<(String, &'a str)> {
    if let Some(with) = with {
        return Some((with.to_owned(), text));
    }
    let (to, rest) = cut(text);
    let to = match to.strip_prefix('@') {
        Some(user) => user,
        None if to.starts_with('#') => to,
        None => return None,
    };
    (to.len() > usize::from(to.starts_with('#'))).then(|| (to.to_owned(), rest))
}

/// The first word, and what follows.
fn cut(text: &str) -> (&str, &str) {
    let text = text.trim();
    match text.split_once(char::is_whitespace) {
        Some((first, rest)) => (first, rest.trim_start()),
        None => (text, ""),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(to: &str, text: &str) -> ChatCommand {
        ChatCommand::Say {
            to: to.into(),
            text: text.into(),
        }
    }

    #[test]
    fn a_line_is_said_unless_it_begins_with_a_slash() {
        let parse = |line| ChatCommand::parse(line, Some("bob"));
        assert_eq!(parse(" it's  fine \n"), say("bob", "it's  fine"));
        assert_eq!(parse("@carol #ops q"), say("bob", "@carol #ops q"));
        assert_eq!(
            parse("//etc is a directory"),
            say("bob", "/etc is a directory")
        );
        assert_eq!(parse("  \n"), ChatCommand::Nothing);
        for leave in ["q\n", "/q", "/quit"] {
            assert_eq!(parse(leave), ChatCommand::Leave);
        }
        assert!(matches!(parse("/etc is"), ChatCommand::Wrong(_)));
    }

    #[test]
    fn without_anyone_a_line_says_whom_it_is_for() {
        let parse = |line| ChatCommand::parse(line, None);
        assert_eq!(parse("@bob hi there"), say("bob", "hi there"));
        assert_eq!(parse("#ops hi"), say("#ops", "hi"));
        for line in [
            "hi",
            "@",
            "@ hi",
            "# hi",
            "@bob",
            "/file a",
            "/history",
            "/file #ops a",
        ] {
            assert!(matches!(parse(line), ChatCommand::Wrong(_)), "{line}");
        }
        let file = ChatCommand::File {
            to: "bob".into(),
            path: "my file".into(),
        };
        assert_eq!(parse("/file @bob  my file "), file);
        let history = ChatCommand::History {
            with: "#ops".into(),
            limit: NonZeroU32::new(7).expect("7"),
        };
        assert_eq!(parse("/history #ops 7"), history);
    }

    #[test]
    fn help_and_parser_know_the_same_commands() {
        for line in HELP.lines().filter(|line| !line.starts_with("//")) {
            let Some(command) = line.strip_prefix('/') else {
                continue;
            };
            let (name, _) = cut(command);
            let parsed = ChatCommand::parse(&format!("/{name}"), Some("bob"));
            if let ChatCommand::Wrong(why) = parsed {
                assert!(!why.starts_with("there is no command"), "{line}: {why}");
            }
        }
    }

    #[test]
    fn files_go_to_users_and_not_to_rooms() {
        assert!(matches!(
            ChatCommand::parse("/file a", Some("#ops")),
            ChatCommand::Wrong(_)
        ));
        let file = ChatCommand::File {
            to: "bob".into(),
            path: "a".into(),
        };
        assert_eq!(ChatCommand::parse("/file @bob a", Some("#ops")), file);
        assert!(matches!(
            ChatCommand::parse("/file", Some("bob")),
            ChatCommand::Wrong(_)
        ));
        let accept = ChatCommand::Accept {
            offer: Some("7".into()),
            path: Some("my file".into()),
        };
        assert_eq!(
            ChatCommand::parse("/accept 7 my file", Some("#ops")),
            accept
        );
        let decline = ChatCommand::Decline { offer: None };
        assert_eq!(ChatCommand::parse("/decline", None), decline);
    }

    proptest::proptest! {
        #[test]
        fn any_line_means_something(line: String, alone: bool) {
            ChatCommand::parse(&line, (!alone).then_some("bob"));
        }
    }
}
