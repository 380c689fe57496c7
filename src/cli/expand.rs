//! Paths with wildcards on the server: the client lists the directories and compares the names.

use futures::stream::{self, StreamExt, TryStreamExt};

use crate::cli::exit::NoMatch;
use crate::cli::failures::Failures;
use crate::cli::wildcards::{NamePattern, unquoted};
use crate::client::{Client, ClientError, join};
use crate::protocol::{Entry, ErrorCode, Kind};

/// The paths that one pattern may match.
const MAX_MATCHES: usize = 100_000;

/// Outstanding requests that check whether a path exists.
const MAX_OUTSTANDING: usize = 16;

/// A path on the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RemotePath {
    pub(super) path: String,
    /// What a listing said of it, if a pattern found it there.
    pub(super) entry: Option<Entry>,
}

/// The paths that `paths` stand for. A pattern without a match is a failure.
pub(super) async fn expand(
    client: &Client,
    paths: &[String],
    failures: &mut Failures,
) -> anyhow::Result<Vec<RemotePath>> {
    let mut expanded = Vec::new();
    for path in paths {
        match expand_one(client, path).await {
            Ok(found) => expanded.extend(found),
            Err(error) => failures.add(error)?,
        }
    }
    if expanded.len() > 1 {
        failures.expect_several();
    }
    Ok(expanded)
}

/// [`expand`], where only the names matter.
pub(super) async fn expand_names(
    client: &Client,
    paths: &[String],
    failures: &mut Failures,
) -> anyhow::Result<Vec<String>> {
    let expanded = expand(client, paths, failures).await?;
    Ok(expanded.into_iter().map(|found| found.path).collect())
}

/// The paths that `path` stands for: itself, or those that match.
pub(super) async fn expand_one(client: &Client, path: &str) -> anyhow::Result<Vec<RemotePath>> {
    let is_pattern = |name: &str| NamePattern::parse(name).is_some();
    if !path.split('/').any(is_pattern) {
        return Ok(vec![RemotePath::named(unquoted(path))]);
    }
    let root = if path.starts_with('/') { "/" } else { "" };
    let mut found = vec![RemotePath::named(root.to_owned())];
    let mut has_matched = false;
    let names: Vec<_> = path.split('/').filter(|name| !name.is_empty()).collect();
    for (index, name) in names.iter().enumerate() {
        let needs_directory = index + 1 < names.len() || path.ends_with('/');
        found = match NamePattern::parse(name) {
            None => {
                let name = unquoted(name);
                let below = found.iter().map(|base| join(&base.path, &name));
                below.map(RemotePath::named).collect()
            }
            Some(pattern) => {
                let matches = matches(client, &found, &pattern, has_matched).await?;
                has_matched = true;
                let is_wanted =
                    |found: &RemotePath| !needs_directory || found.kind() == Some(Kind::Dir);
                matches.into_iter().filter(is_wanted).collect()
            }
        };
    }
    found = existing(client, found).await?;
    if path.ends_with('/') {
        found.retain(|found| found.kind() == Some(Kind::Dir));
    }
    if !found.is_empty() {
        return Ok(found);
    }
    // A name such as `report [1].txt` is not matched by itself.
    match client.stat(path).await {
        Ok(stat) => Ok(vec![RemotePath {
            path: path.to_owned(),
            entry: Some(stat.entry),
        }]),
        Err(error) if is_absence(&error) => Err(NoMatch(path.to_owned()).into()),
        Err(error) => Err(error.into()),
    }
}

/// The entries below the directories `bases` that match. Directories that a pattern has found may
/// be unreadable.
async fn matches(
    client: &Client,
    bases: &[RemotePath],
    pattern: &NamePattern,
    may_be_unreadable: bool,
) -> anyhow::Result<Vec<RemotePath>> {
    let mut found = Vec::new();
    for base in bases {
        let directory = if base.path.is_empty() {
            "."
        } else {
            &base.path
        };
        let start = found.len();
        let mut entries = std::pin::pin!(client.entries(directory));
        loop {
            match entries.try_next().await {
                Ok(Some(entry)) if pattern.matches(&entry.name) => {
                    if found.len() == MAX_MATCHES {
                        anyhow::bail!("a pattern matches more than {MAX_MATCHES} paths");
                    }
                    found.push(RemotePath {
                        path: join(&base.path, &entry.name),
                        entry: Some(entry),
                    });
                }
                Ok(Some(_)) => {}
                Ok(None) => break,
                Err(error) if may_be_unreadable && is_absence(&error) => break,
                Err(error) => return Err(error.into()),
            }
        }
        found[start..].sort_by(|a, b| a.path.cmp(&b.path));
    }
    Ok(found)
}

/// Those of `paths` that exist.
async fn existing(client: &Client, paths: Vec<RemotePath>) -> anyhow::Result<Vec<RemotePath>> {
    let checks = stream::iter(paths).map(async |found| {
        if found.entry.is_some() {
            return Ok(Some(found));
        }
        match client.stat(&found.path).await {
            Ok(stat) => Ok(Some(RemotePath {
                entry: Some(stat.entry),
                ..found
            })),
            Err(error) if is_absence(&error) => Ok(None),
            Err(error) => Err(error.into()),
        }
    });
    let existing = checks.buffered(MAX_OUTSTANDING);
    let existing = existing.try_filter_map(async |found| Ok(found));
    existing.try_collect().await
}

fn is_absence(error: &ClientError) -> bool {
    matches!(
        error.code(),
        Some(ErrorCode::NotFound | ErrorCode::NotADirectory | ErrorCode::Denied)
    )
}

impl RemotePath {
    fn named(path: String) -> Self {
        Self { path, entry: None }
    }

    fn kind(&self) -> Option<Kind> {
        self.entry.as_ref().map(|entry| entry.kind)
    }
}
