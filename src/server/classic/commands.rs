//! The commands of the classic dialect: parses a typed line into a request for the session. Pure.

use std::fmt::Write as _;

use crate::protocol::{
    Algorithm, Cd, Df, Digest, Hash, Login, Ls, Mkdir, Mv, Pwd, Quit, Rm, Secret,
};
use crate::server::classic::frame::ClassicRequest;
use crate::server::classic::tokens::{OpenQuote, split, word};

/// The usage of each command.
const CLASSIC_COMMANDS: &[(&str, &str)] = &[
    ("login", "login USER PASSWORD"),
    ("register", "register USER PASSWORD"),
    ("pwd", "pwd"),
    ("ls", "ls [PATH]"),
    ("cd", "cd [PATH]"),
    ("mkdir", "mkdir PATH"),
    ("rm", "rm [-r] PATH"),
    ("mv", "mv FROM TO"),
    ("get", "get PATH [LOCALDIR]"),
    ("put", "put LOCALPATH [DIR]"),
    ("hash", "hash PATH"),
    ("df", "df"),
    ("who", "who"),
    ("say", "say TO TEXT"),
    ("help", "help"),
    ("quit", "quit"),
];

/// A command of a classic client.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum ClassicCommand {
    Login(Login),
    Register { user: String, password: Secret },
    Pwd(Pwd),
    Ls(Ls),
    Cd(Cd),
    Mkdir(Mkdir),
    Rm(Rm),
    Mv(Mv),
    Get(ClassicDownload),
    Put(ClassicUpload),
    Hash(Hash),
    Df(Df),
    Who,
    Say { to: String, text: String },
    Help,
    Quit(Quit),
}

/// A download.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicDownload {
    pub(crate) path: String,
    /// The client's own directory for the file, which the reply repeats.
    pub(crate) dst_dir: String,
}

/// An upload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClassicUpload {
    pub(crate) path: String,
    /// The MD5 that the client expects.
    pub(crate) digest: Option<Digest>,
}

/// Why a request is not a command.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ClassicCommandError {
    #[error("`cmd` has no command; \"help\" lists them")]
    NoCommand,
    #[error("unknown command \"{0}\"; \"help\" lists them")]
    Unknown(String),
    #[error(transparent)]
    OpenQuote(#[from] OpenQuote),
    #[error("usage: {0}; put names with spaces in double quotes")]
    Usage(&'static str),
    #[error("\"{0}\" is not the path of a file")]
    NoName(String),
    #[error("`file_hash` is not an MD5, which has 32 hex digits")]
    NoHash,
}

impl ClassicCommand {
    pub(crate) fn parse(request: &ClassicRequest) -> Result<Self, ClassicCommandError> {
        let (name, arguments) = word(&request.cmd)?.ok_or(ClassicCommandError::NoCommand)?;
        let name = name.to_ascii_lowercase();
        let known = CLASSIC_COMMANDS.iter().find(|(order, _)| *order == name);
        let &(_, usage) = known.ok_or_else(|| {
            // Not the whole line, which may contain a password.
            ClassicCommandError::Unknown(name.chars().take(32).collect())
        })?;
        let order = if name == "say" {
            parse_message(arguments)?
        } else {
            parse_words(&name, &split(arguments)?, request)?
        };
        order.ok_or(ClassicCommandError::Usage(usage))
    }
}

fn parse_words(
    name: &str,
    words: &[String],
    request: &ClassicRequest,
) -> Result<Option<ClassicCommand>, ClassicCommandError> {
    let path = || match words {
        [path] => Some(path.clone()),
        _ => None,
    };
    Ok(match name {
        "login" => parse_login(words, request).map(ClassicCommand::Login),
        "register" => match parse_login(words, request) {
            Some(Login {
                user: Some(user),
                password: Some(password),
                ..
            }) => Some(ClassicCommand::Register { user, password }),
            _ => None,
        },
        "pwd" => Some(ClassicCommand::Pwd(Pwd {})),
        "ls" if words.is_empty() => Some(ClassicCommand::Ls(Ls::default())),
        "ls" => path().map(|path| {
            ClassicCommand::Ls(Ls {
                path: Some(path),
                ..Ls::default()
            })
        }),
        "cd" if words.is_empty() => Some(ClassicCommand::Cd(Cd { path: "/".into() })),
        "cd" => path().map(|path| ClassicCommand::Cd(Cd { path })),
        "mkdir" => path().map(|path| {
            ClassicCommand::Mkdir(Mkdir {
                path,
                ..Mkdir::default()
            })
        }),
        "rm" => match words {
            [path] => Some((path, false)),
            [option, path] if option == "-r" => Some((path, true)),
            _ => None,
        }
        .map(|(path, recursive)| {
            let path = path.clone();
            ClassicCommand::Rm(Rm { path, recursive })
        }),
        "mv" => match words {
            [from, to] => Some(ClassicCommand::Mv(Mv {
                from: from.clone(),
                to: to.clone(),
                if_exists: None,
            })),
            _ => None,
        },
        "get" => parse_download(words, request).map(ClassicCommand::Get),
        "put" => parse_upload(words, request)?.map(ClassicCommand::Put),
        "hash" => path().map(|path| {
            let digest = Some(Algorithm::Md5);
            ClassicCommand::Hash(Hash {
                path,
                digest,
                version: None,
            })
        }),
        "df" => Some(ClassicCommand::Df(Df {})),
        "who" => Some(ClassicCommand::Who),
        "help" => Some(ClassicCommand::Help),
        "quit" => Some(ClassicCommand::Quit(Quit {})),
        _ => None,
    })
}

/// The login, from the fields of the request or from the words. Without either, a certificate may name
/// the user.
fn parse_login(words: &[String], request: &ClassicRequest) -> Option<Login> {
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    let (user, password) = match words {
        _ if !request.psd.is_empty() => {
            let user = given(&request.user).or_else(|| words.first().cloned());
            (user, given(&request.psd))
        }
        [user, password] => (given(user), given(password)),
        [user] => (given(user), None),
        [] => (given(&request.user), None),
        _ => return None,
    };
    Some(Login {
        user,
        password: password.map(Secret::new),
        ..Login::default()
    })
}

fn parse_download(words: &[String], request: &ClassicRequest) -> Option<ClassicDownload> {
    let (path, typed) = match words {
        [] if !request.filename.is_empty() => (&request.filename, ""),
        [path] => (path, ""),
        [path, local] => (path, local.as_str()),
        _ => return None,
    };
    Some(ClassicDownload {
        path: path.clone(),
        dst_dir: first_non_empty(&request.dst_dir, typed).to_owned(),
    })
}

fn parse_upload(
    words: &[String],
    request: &ClassicRequest,
) -> Result<Option<ClassicUpload>, ClassicCommandError> {
    let (local, typed) = match words {
        [local] => (local.as_str(), ""),
        [local, directory] => (local.as_str(), directory.as_str()),
        // No path, or one with spaces and without quotes: the fields must name the file.
        _ => ("", ""),
    };
    if request.filename.is_empty() && local.is_empty() {
        return Ok(None);
    }
    let name = if request.filename.is_empty() {
        // The path may be one of any operating system.
        last_component(local, &['/', '\\'])
    } else {
        last_component(&request.filename, &['/'])
    };
    if matches!(name, "" | "." | "..") {
        let given = first_non_empty(&request.filename, local);
        return Err(ClassicCommandError::NoName(
            given.chars().take(200).collect(),
        ));
    }
    Ok(Some(ClassicUpload {
        path: join(first_non_empty(&request.dst_dir, typed), name),
        digest: parse_md5(&request.file_hash)?,
    }))
}

/// The path of `name` in `directory`, or in the current directory if that is empty.
fn join(directory: &str, name: &str) -> String {
    match directory.trim_end_matches('/') {
        "" if directory.is_empty() => name.into(),
        directory => format!("{directory}/{name}"),
    }
}

fn first_non_empty<'a>(field: &'a str, typed: &'a str) -> &'a str {
    if field.is_empty() { typed } else { field }
}

fn last_component<'a>(path: &'a str, separators: &[char]) -> &'a str {
    path.rsplit(separators).next().unwrap_or(path)
}

fn parse_md5(hex: &str) -> Result<Option<Digest>, ClassicCommandError> {
    let hex = hex.trim();
    if hex.is_empty() {
        return Ok(None);
    }
    let digest = format!("md5:{}", hex.to_ascii_lowercase()).parse();
    digest.map(Some).map_err(|_| ClassicCommandError::NoHash)
}

/// A message: everything after the name, as typed.
fn parse_message(line: &str) -> Result<Option<ClassicCommand>, ClassicCommandError> {
    let Some((to, text)) = word(line)? else {
        return Ok(None);
    };
    let text = text.trim_ascii();
    let inner = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let text = match inner {
        Some(inner) if !inner.contains('"') => inner,
        _ => text,
    };
    let text = text.to_owned();
    Ok((!text.is_empty()).then_some(ClassicCommand::Say { to, text }))
}

/// The usage of all commands, one per line.
pub(crate) fn help() -> String {
    let mut text = "Put names with spaces in double quotes. The orders:".to_owned();
    for (_, usage) in CLASSIC_COMMANDS {
        let _ = write!(text, "\n  {usage}");
    }
    text
}

#[cfg(test)]
mod tests;
