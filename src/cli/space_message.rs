//! The message for a file that does not fit: whose space is full, how full, and what to do.

use crate::cli::exit::SpaceExplained;
use crate::cli::output::size;
use crate::cli::remote_path::absolute;
use crate::cli::remote_session::RemoteSession;
use crate::client::ClientError;
use crate::protocol::{ErrorCode, QuotaUnit, WhoamiReply, WireError};

/// `error` with the space and its use, if a file does not fit; any other error stays as it is.
/// `target` is the path that a command without data writes to.
pub(crate) async fn with_space_explained(
    remote: &RemoteSession,
    target: Option<&str>,
    error: anyhow::Error,
) -> anyhow::Error {
    let (path, needed, refusal) = match (error.downcast_ref(), target) {
        (
            Some(ClientError::NoSpace {
                path,
                size: needed,
                error: refusal,
            }),
            _,
        ) => (&**path, *needed, &**refusal),
        (Some(ClientError::Server(refusal)), Some(path))
            if refusal.code == ErrorCode::QuotaExceeded && refusal.limit.is_some() =>
        {
            (path, None, refusal)
        }
        _ => return error,
    };
    let client = remote.session.client();
    let text = if refusal.code == ErrorCode::NoSpace {
        match client.df().await {
            Ok(df) => disk_full(path, needed, df.free),
            Err(_) => return error,
        }
    } else {
        match client.whoami().await {
            Ok(whoami) => quota_full(&space(path, &whoami), path, needed, refusal),
            Err(_) => return error,
        }
    };
    // The code of the original error stays known to programs.
    error.context(SpaceExplained(text))
}

/// Whose quota counts at `path`.
fn space(path: &str, whoami: &WhoamiReply) -> String {
    let components = absolute(&whoami.cwd, path);
    let folder = components
        .first()
        .filter(|first| whoami.folders.iter().any(|folder| folder.name == **first));
    match folder {
        Some(folder) => format!("/{folder}"),
        None => "your home".to_owned(),
    }
}

fn quota_full(space: &str, path: &str, needed: Option<u64>, refusal: &WireError) -> String {
    let (used, limit) = (refusal.used.unwrap_or(0), refusal.limit.unwrap_or(0));
    let (full, needs) = match refusal.unit {
        Some(QuotaUnit::Files) => (
            format!("{used} of {limit} files and directories"),
            String::new(),
        ),
        _ => (
            format!("{} of {} used", size(used), size(limit)),
            needed.map_or(String::new(), |needed| {
                format!(", {path} needs {}", size(needed))
            }),
        ),
    };
    format!(
        "the quota of {space} leaves no room: {full}{needs}; \
         remove something there or ask the operator of the server for more"
    )
}

fn disk_full(path: &str, needed: Option<u64>, free: u64) -> String {
    let needs = needed.map_or(String::new(), |needed| {
        format!(", {path} needs {}", size(needed))
    });
    format!(
        "the server's disk is full: {} free, not all of it for users{needs}; \
         ask the operator of the server to free some, or try again later",
        size(free)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{FolderView, QuotaReply};

    const GIB: u64 = 1 << 30;

    fn whoami(cwd: &str) -> WhoamiReply {
        WhoamiReply {
            more: false,
            user: "alice".into(),
            admin: false,
            cwd: cwd.into(),
            folders: vec![FolderView {
                name: "team".into(),
                rights: Vec::new(),
            }],
            quota: QuotaReply {
                limit: None,
                files_limit: None,
            },
            session: "s".into(),
        }
    }

    #[test]
    fn whose_space_is_full_depends_on_where_the_path_leads() {
        for (cwd, path, expected) in [
            ("/", "team/a", "/team"),
            ("/team/sub", "a", "/team"),
            ("/team", "../a", "your home"),
            ("/", "teams/a", "your home"),
        ] {
            assert_eq!(space(path, &whoami(cwd)), expected, "{path} in {cwd}");
        }
    }

    #[test]
    fn a_full_quota_says_whose_how_full_and_what_to_do() {
        let mut refusal = WireError::new(ErrorCode::QuotaExceeded, "no");
        (refusal.used, refusal.limit) = (Some(9 * GIB), Some(10 * GIB));
        assert_eq!(
            quota_full("/team", "big.iso", Some(2 * GIB), &refusal),
            "the quota of /team leaves no room: 9.0 GiB of 10.0 GiB used, big.iso needs 2.0 GiB; \
             remove something there or ask the operator of the server for more"
        );
        (refusal.used, refusal.limit) = (Some(7), Some(7));
        refusal.unit = Some(QuotaUnit::Files);
        let text = quota_full("your home", "a", Some(1), &refusal);
        assert!(text.starts_with(
            "the quota of your home leaves no room: 7 of 7 files and directories; remove"
        ));
    }

    #[test]
    fn a_full_disk_says_whose_and_what_to_do() {
        let text = disk_full("a", Some(GIB), 1 << 20);
        assert!(
            text.starts_with("the server's disk is full: 1.0 MiB free"),
            "{text}"
        );
        assert!(text.contains("a needs 1.0 GiB; ask"), "{text}");
    }
}
