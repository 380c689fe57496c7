//! `haul man`: manual pages, from the same text as the help.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::{Arg, Args, Command};
use clap_mangen::roff::{Inline, Roff, bold, roman};

use crate::cli::output::{Output, count};

/// Write manual pages for haul and its commands
///
/// The program `man` finds the pages in ~/.local/share/man/man1.
#[derive(Debug, Args)]
pub(super) struct ManArgs {
    /// The directory, created if it is missing; its pages are replaced
    #[arg(value_name = "DIR")]
    directory: PathBuf,
}

impl ManArgs {
    pub(super) fn run(self, output: Output, command: Command) -> anyhow::Result<()> {
        let directory = &self.directory;
        let pages = fs::create_dir_all(directory)
            .and_then(|()| write_pages(command, None, directory))
            .with_context(|| format!("cannot write pages into {}", directory.display()))?;
        output.note(&format!(
            "{} in {}",
            count(pages, "page"),
            directory.display()
        ));
        Ok(())
    }
}

/// Writes the page of `command` and those of its subcommands; how many those are.
fn write_pages(command: Command, parent: Option<&str>, directory: &Path) -> io::Result<u64> {
    let (name, mut pages) = (page(&command), 1);
    for sub in shown(&command) {
        pages += write_pages(sub.clone(), Some(&name), directory)?;
    }
    fs::write(
        directory.join(format!("{name}.1")),
        render(command, parent)?,
    )?;
    Ok(pages)
}

fn shown(command: &Command) -> impl Iterator<Item = &Command> {
    let subs = command.get_subcommands();
    subs.filter(|sub| !sub.is_hide_set() && sub.get_name() != "help")
}

/// `haul-user-add` for `haul user add`.
fn page(command: &Command) -> String {
    let name = command.get_display_name();
    name.unwrap_or_else(|| command.get_name()).to_owned()
}

fn render(command: Command, parent: Option<&str>) -> io::Result<Vec<u8>> {
    let sections = Sections::for_command(&command, parent);
    // What is under its own heading here.
    let command = command.disable_help_subcommand(true);
    let page = clap_mangen::Man::new(command)
        .source(concat!("haul ", env!("CARGO_PKG_VERSION")))
        .manual("haul");
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    if sections.has_commands {
        page.render_subcommands_section(&mut text)?;
    }
    sections.write(&mut text)?;
    Ok(escaped(&String::from_utf8_lossy(&text)))
}

/// As every roff reads it, whatever it takes bytes for.
fn escaped(text: &str) -> Vec<u8> {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii() {
            escaped.push(c);
        } else {
            let _ = write!(escaped, "\\[u{:04X}]", u32::from(c));
        }
    }
    escaped.into_bytes()
}

/// Facts that the definition of the command line does not contain.
struct Sections {
    has_commands: bool,
    /// Its kind: it runs for long, sends requests to a server, or works on this machine.
    kind: PageKind,
    environment: Vec<(String, String)>,
    see_also: Vec<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PageKind {
    Daemon,
    Client,
    Local,
}

impl Sections {
    fn for_command(command: &Command, parent: Option<&str>) -> Self {
        let name = page(command);
        let asks = command
            .get_arguments()
            .any(|arg| arg.get_id() == "server" && !arg.is_hide_set());
        let mut see_also: Vec<_> = parent.map(str::to_owned).into_iter().collect();
        see_also.extend(shown(command).map(page));
        Self {
            has_commands: shown(command).next().is_some(),
            kind: match &*name {
                "haul-serve" => PageKind::Daemon,
                _ if asks => PageKind::Client,
                _ => PageKind::Local,
            },
            environment: environment(command),
            see_also,
        }
    }

    fn write(&self, text: &mut Vec<u8>) -> io::Result<()> {
        let mut roff = Roff::new();
        let section = |roff: &mut Roff, title: &str, rows: &[(String, String)]| {
            if rows.is_empty() {
                return;
            }
            roff.control("SH", [title]);
            for (name, meaning) in rows {
                roff.control("TP", []);
                roff.text([bold(name.as_str())]);
                roff.text([roman(meaning.as_str())]);
            }
        };
        section(&mut roff, "EXIT STATUS", &owned(self.exit_codes()));
        let mut environment = self.environment.clone();
        environment.extend(owned(self.more_environment()));
        section(&mut roff, "ENVIRONMENT", &environment);
        section(&mut roff, "FILES", &owned(self.files()));
        roff.control("SH", ["SEE ALSO"]);
        let mut also: Vec<Inline> = Vec::new();
        for name in &self.see_also {
            if !also.is_empty() {
                also.push(roman(", "));
            }
            also.extend([bold(name.as_str()), roman("(1)")]);
        }
        roff.text(also);
        roff.to_writer(text)
    }

    fn exit_codes(&self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            PageKind::Daemon => &[
                ("0", "It was told to stop, and has."),
                (
                    "1",
                    "It could not start, for a reason that may be gone the next time: the port is \
                     taken, the data directory cannot be used, the certificate cannot be read.",
                ),
                (
                    "2",
                    "The arguments or the configuration are wrong: it starts once they are corrected.",
                ),
            ],
            PageKind::Client => &[
                ("0", "It is done."),
                ("1", "The server or the transfer said no."),
                ("2", "The arguments are wrong."),
                ("3", "There was no connection, or no login."),
                ("130", "It was interrupted."),
            ],
            PageKind::Local => &[
                ("0", "It is done."),
                ("1", "It could not be done."),
                ("2", "The arguments or the configuration are wrong."),
                ("4", "A backup was made, but files changed all the time."),
            ],
        }
    }

    fn more_environment(&self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            PageKind::Daemon => &[
                (
                    "HAUL_SECTION_NAME",
                    "Any setting of the configuration: limits.sessions is HAUL_LIMITS_SESSIONS. It \
                     beats the file, and a flag beats it.",
                ),
                (
                    "HAUL_ADMIN_PASSWORD_FILE",
                    "A file whose first line is the password of the account admin, which the first \
                     start makes.",
                ),
                (
                    "NOTIFY_SOCKET, WATCHDOG_USEC",
                    "Set by systemd, which is told when haul serves, reads its configuration again, \
                     stops, and that it lives.",
                ),
            ],
            PageKind::Client => &[("HAUL_PASSWORD", "The password.")],
            PageKind::Local => &[],
        }
    }

    fn files(&self) -> &'static [(&'static str, &'static str)] {
        match self.kind {
            PageKind::Daemon => &[
                (
                    "./haul-data",
                    "The data directory, unless another is named.",
                ),
                (
                    "DATA/homes, DATA/folders",
                    "In the data directory: the files of users, and of shared folders.",
                ),
                (
                    "DATA/haul.db, DATA/messages.db",
                    "Accounts, rights and tokens; messages.",
                ),
                ("DATA/tls", "The certificate that haul made for itself."),
            ],
            PageKind::Client => &[
                (
                    "~/.config/haul/servers.toml",
                    "The logins that haul connect remembers.",
                ),
                (
                    "~/.config/haul/known_servers.toml",
                    "The certificates of servers that were trusted.",
                ),
                (
                    "~/.local/state/haul/history",
                    "The last lines that were typed in haul shell.",
                ),
            ],
            PageKind::Local => &[],
        }
    }
}

fn owned(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    let rows = rows.iter();
    rows.map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
        .collect()
}

/// The variables that stand for options of the command.
fn environment(command: &Command) -> Vec<(String, String)> {
    let shown = command.get_arguments().filter(|arg| !arg.is_hide_set());
    let row = |arg: &Arg| {
        let name = arg.get_env()?.to_str()?.to_owned();
        Some((name, format!("The same as --{}.", arg.get_long()?)))
    };
    shown.filter_map(row).collect()
}
