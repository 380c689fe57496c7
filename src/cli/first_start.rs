//! The first account, its password, and the greeting of a new server.
//!
//! The password is shown on a terminal. Any other destination of standard error may store it, such as the
//! log of a container, and must not contain a secret. The password is then written to a file that only the
//! server's user can read.

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

/// The password of the first account.
pub(super) enum FirstPassword {
    /// It is not stored anywhere and must be shown.
    Generated(Secret),
    /// It is in a file: the operator's, or [`first_password_file`].
    InFile(PathBuf),
}

/// Whether standard error is a terminal whose output is not stored. A container engine stores the output
/// even if there is a terminal.
pub(super) fn terminal_shows_secrets() -> bool {
    io::stderr().is_terminal() && !is_in_container()
}

/// Podman and others set a variable, and so does the image of haul:
/// <https://systemd.io/CONTAINER_INTERFACE/>. The file `/.dockerenv` is no criterion: it also exists for a
/// shell in a container, whose output is not stored.
fn is_in_container() -> bool {
    std::process::id() == 1 || std::env::var_os("container").is_some()
}

/// Creates the account `admin` if there are no accounts.
pub(super) async fn first_admin(
    accounts: &Accounts,
    data: &Path,
    shows_secrets: bool,
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
        let first = if shows_secrets {
            FirstPassword::Generated(password.clone())
        } else {
            // Before the account is created: without the file, nobody could log in.
            FirstPassword::InFile(write_password(&password, data)?)
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
            "cannot read the file that HAUL_ADMIN_PASSWORD_FILE names, {}",
            file.display()
        )
    })?;
    let password = text.lines().next().unwrap_or_default();
    if password.is_empty() {
        bail!(
            "the first line of {} is empty; it must be the password of admin",
            file.display()
        );
    }
    Ok(Secret::new(password.to_owned()))
}

/// 100 random bits, as letters and digits that are hard to confuse.
fn random_password() -> anyhow::Result<Secret> {
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes).context("cannot get random bytes from the system")?;
    let text = BASE32_NOPAD.encode(&bytes).to_lowercase();
    Ok(Secret::new(text[..20].to_owned()))
}

/// Writes the password to a file that only this user can read.
fn write_password(password: &Secret, data: &Path) -> anyhow::Result<PathBuf> {
    let file = first_password_file(data);
    let write = || {
        // The file of an earlier start that failed is not reused: another process may have it open.
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
    write().with_context(|| format!("cannot write the password of admin to {}", file.display()))?;
    Ok(file)
}

/// Prints on a terminal how to reach the server, or logs it.
pub(super) fn greet(
    address: SocketAddr,
    status_page: Option<SocketAddr>,
    data: &Path,
    fingerprint: Fingerprint,
    first: Option<&FirstPassword>,
    shows_secrets: bool,
) {
    let connect = format!("haul connect haul://{FIRST_USER}@{}", reachable(address));
    let status_page = status_page.map(|address| format!("http://{}/", reachable(address)));
    if !shows_secrets {
        if let Some(url) = status_page {
            info!(name: "status_page", url, "the status page is available");
        }
        // The lines `listening` and `certificate` contain the rest.
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
    if let Some(url) = status_page {
        let _ = writeln!(lines, "Its status page is {url}");
    }
    if let Some(first) = first {
        let password = match first {
            FirstPassword::Generated(password) => {
                format!(", shown this once: {}", password.expose())
            }
            FirstPassword::InFile(file) => format!(" is the one in {}", file.display()),
        };
        let _ = writeln!(
            lines,
            "\n  The account `admin` is new. Its password{password}\n  \
             Connect with: {connect}\n"
        );
    }
    // The server also serves if the terminal was closed.
    let _ = io::stderr().lock().write_all(lines.as_bytes());
}

/// The address itself, or the loopback address if it is unspecified.
pub(super) fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        ip if !ip.is_unspecified() => address,
        ip if ip.is_ipv4() => (Ipv4Addr::LOCALHOST, address.port()).into(),
        _ => (Ipv6Addr::LOCALHOST, address.port()).into(),
    }
}
