//! The first account, how its password gets to a person, and what to type next.
//!
//! A terminal shows the password. Anything else that standard error leads to may keep it: the log of
//! a container or of the system is no place for a secret. It is then in a file that only the user
//! that the server runs as can read.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, IsTerminal as _, Write as _};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use data_encoding::BASE32_NOPAD;
use tracing::info;

use crate::accounts::{Accounts, FIRST_USER, NewUser, UserName, first_password_file};
use crate::protocol::Secret;
use crate::storage::SpaceLimits;
use crate::telemetry::AUDIT;
use crate::tls::Fingerprint;

/// Where the password of the first account is.
pub(super) enum FirstPassword {
    /// Nowhere else: it has to be shown.
    Made(Secret),
    /// In a file: the operator's, or [`first_password_file`].
    InFile(PathBuf),
}

/// Whether a person sees what is said on standard error, and nobody keeps it. In a container there
/// may be a terminal, but what is said there is kept by the engine all the same.
pub(super) fn is_watched() -> bool {
    io::stderr().is_terminal() && !is_in_container()
}

/// Podman and others say so by a variable, and so does the image of haul:
/// <https://systemd.io/CONTAINER_INTERFACE/>. A file such as `/.dockerenv` says less: who works in a
/// container looks at a terminal that nobody keeps.
fn is_in_container() -> bool {
    std::process::id() == 1 || std::env::var_os("container").is_some()
}

/// Makes the `admin` account if there is no account at all.
pub(super) async fn first_admin(
    accounts: &Accounts,
    data: &Path,
    watched: bool,
) -> anyhow::Result<Option<FirstPassword>> {
    if !accounts.users().await?.is_empty() {
        return Ok(None);
    }
    let given = std::env::var_os("HAUL_ADMIN_PASSWORD_FILE").filter(|file| !file.is_empty());
    let (password, first) = if let Some(file) = given {
        let file = PathBuf::from(file);
        (password_from(&file)?, FirstPassword::InFile(file))
    } else {
        let password = random_password()?;
        let first = if watched {
            FirstPassword::Made(password.clone())
        } else {
            // Before the account, which nobody could log in to without it.
            FirstPassword::InFile(keep(&password, data)?)
        };
        (password, first)
    };
    let admin: UserName = FIRST_USER.parse().context("`admin` is a user name")?;
    let new = NewUser {
        admin: true,
        limits: SpaceLimits::default(),
    };
    accounts.add_user(&admin, &password, new).await?;
    Ok(Some(first))
}

fn password_from(file: &Path) -> anyhow::Result<Secret> {
    let text = fs::read_to_string(file).with_context(|| {
        format!(
            "cannot read HAUL_ADMIN_PASSWORD_FILE, which is {}",
            file.display()
        )
    })?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        bail!(
            "the first line of {} is empty; write the admin's password there",
            file.display()
        );
    }
    Ok(Secret::new(password.to_owned()))
}

/// 100 random bits, in letters and digits that are hard to mistake for each other.
fn random_password() -> anyhow::Result<Secret> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).context("the system gives no random bytes")?;
    let text = BASE32_NOPAD.encode(&bytes).to_lowercase();
    Ok(Secret::new(text[..20].to_owned()))
}

/// Writes the password where only this user can read it.
fn keep(password: &Secret, data: &Path) -> anyhow::Result<PathBuf> {
    let file = first_password_file(data);
    let write = || {
        // The leftover of a start that failed is not opened, because another process may still read it.
        match fs::remove_file(&file) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        let mut opened = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&file)?;
        writeln!(opened, "{}", password.expose())?;
        opened.sync_all()?;
        File::open(data)?.sync_all()
    };
    write().with_context(|| format!("cannot write the admin's password to {}", file.display()))?;
    Ok(file)
}

/// Tells whoever started the server how to reach it: a person on standard error, a log by a line.
pub(super) fn say_what_to_do_next(
    address: SocketAddr,
    data: &Path,
    fingerprint: Fingerprint,
    first: Option<&FirstPassword>,
    watched: bool,
) {
    let connect = format!("haul connect haul://{FIRST_USER}@{}", reachable(address));
    if !watched {
        // The lines `listening` and `certificate` say the rest.
        if let Some(FirstPassword::InFile(file)) = first {
            let password_file = file.display();
            info!(
                name: "admin_made",
                target: AUDIT,
                user = FIRST_USER, %password_file, connect,
                "the first account was made"
            );
        }
        return;
    }
    let mut lines = format!(
        "haul listens on {address} and keeps its data in {}\n\
         Its certificate has the fingerprint {fingerprint}\n",
        data.display()
    );
    if let Some(first) = first {
        let password = match first {
            FirstPassword::Made(password) => format!(", shown this once: {}", password.expose()),
            FirstPassword::InFile(file) => format!(" is the one in {}", file.display()),
        };
        let _ = writeln!(
            lines,
            "\n  The account `admin` is new. Its password{password}\n  \
             Connect with: {connect}\n"
        );
    }
    // A terminal that has gone away is no reason not to serve.
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

/// The address itself, or where this machine finds it if it stands for all of its own.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        ip if ip.is_ipv4() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        _ => (Ipv6Addr::LOCALHOST, address.port()).into(),
    }
}
