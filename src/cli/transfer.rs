//! The parts that `get` and `put` share: targets, and reports of the results.

use std::num::NonZeroU64;
use std::path::Path;
use std::time::Instant;

use bytesize::ByteSize;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tokio::sync::mpsc;

use crate::cli::exit::{Reported, StoppedEarly, unfinished, usage};
use crate::cli::output::{count, print, print_json, safe, size};
use crate::cli::progress::Bar;
use crate::cli::remote_path::{absolute, last_name, under_own_name};
use crate::cli::remote_session::RemoteSession;
use crate::cli::repeated_failures::RepeatedFailures;
use crate::cli::report::error_text;
use crate::cli::space_message::with_space_explained;
use crate::client::{ClientError, NotKept, Progress, RetryPolicy, Session, TreeEvent, TreeSummary};
use crate::protocol::{Algorithm, Digest, ErrorCode, IfExists, Kind};

/// Reports about files that are not printed yet.
const NOTES: usize = 256;

/// The attempts after a lost connection.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct RetryOptions {
    /// Attempts to connect again without progress after a lost connection, for ten minutes at most
    #[arg(long, default_value_t = RetryPolicy::default().attempts, value_name = "N")]
    retries: u32,
}

impl RetryOptions {
    pub(super) fn policy(self) -> RetryPolicy {
        RetryPolicy {
            attempts: self.retries,
            ..RetryPolicy::default()
        }
    }
}

/// The bandwidth of `get`, `put` and `sync`.
#[derive(Debug, Clone, Copy, Args)]
pub(super) struct BandwidthOptions {
    /// Move at most RATE bytes per second, such as `500kB` or `2MiB`; at least `16KiB`
    #[arg(long, value_name = "RATE", value_parser = bandwidth)]
    bwlimit: Option<NonZeroU64>,
}

impl BandwidthOptions {
    pub(super) fn apply(self, session: &Session) {
        if self.bwlimit.is_some() {
            session.limit_bandwidth(self.bwlimit);
        }
    }
}

/// The least value of `--bwlimit`. With less, a frame could take longer than both sides wait for it.
const MIN_BANDWIDTH: u64 = 16 * 1024;

/// A number of bytes.
pub(super) fn byte_size(text: &str) -> Result<ByteSize, String> {
    text.parse()
        .map_err(|_| "expected a size such as `500kB` or `2MiB`".to_owned())
}

/// The value of `--bwlimit`.
fn bandwidth(text: &str) -> Result<NonZeroU64, String> {
    let rate = byte_size(text)?.as_u64();
    NonZeroU64::new(rate)
        .filter(|_| rate >= MIN_BANDWIDTH)
        .ok_or_else(|| "the lowest rate is 16KiB".to_owned())
}

/// `--if-exists`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum IfExistsChoice {
    /// Replace the old file
    Replace,
    /// Keep the old file, and report an error
    Fail,
    /// Choose a free name, and print it
    Rename,
}

impl From<IfExistsChoice> for IfExists {
    fn from(choice: IfExistsChoice) -> Self {
        match choice {
            IfExistsChoice::Replace => Self::Replace,
            IfExistsChoice::Fail => Self::Fail,
            IfExistsChoice::Rename => Self::Rename,
        }
    }
}

/// `--if-exists` of a transfer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum TransferIfExists {
    /// Replace the old file
    Replace,
    /// Keep the old file, and count it
    Skip,
    /// Keep the old file, and report an error
    Fail,
    /// Choose a free name, and print it
    Rename,
}

impl From<TransferIfExists> for IfExists {
    fn from(choice: TransferIfExists) -> Self {
        match choice {
            TransferIfExists::Replace => Self::Replace,
            TransferIfExists::Skip | TransferIfExists::Fail => Self::Fail,
            TransferIfExists::Rename => Self::Rename,
        }
    }
}

/// The value of `--digest`.
pub(super) fn algorithm(name: &str) -> Result<Algorithm, String> {
    name.parse()
        .map_err(|_| "expected one of blake3, sha256, md5".to_owned())
}

/// A file that was moved, as programs read it.
#[derive(Serialize)]
struct Moved<'a> {
    remote: &'a str,
    local: String,
    size: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    digest: Option<Digest>,
}

/// The reports about files.
#[derive(Debug, Clone, Copy)]
pub(super) struct ReportOptions {
    /// `get` or `put`.
    pub(super) what: &'static str,
    /// Name every file.
    pub(super) verbose: bool,
}

/// Runs a job with a progress bar, and reports the result of each file and of all. If the results
/// have no reader any more, the job is dropped.
pub(super) async fn follow<F>(
    remote: &RemoteSession,
    telling: ReportOptions,
    job: impl FnOnce(Progress, mpsc::Sender<TreeEvent>) -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<TreeSummary, ClientError>>,
{
    let progress = Progress::new();
    let bar = Bar::new(remote.output, &progress);
    let moved = progress.clone();
    let (sender, mut notes) = mpsc::channel(NOTES);
    let started = Instant::now();
    let shown = &bar;
    // A failed job is a result here: its earlier events are still to be reported.
    let work = async { anyhow::Ok(job(progress, sender).await) };
    let listen = async move {
        let mut repeated = RepeatedFailures::default();
        while let Some(note) = notes.recv().await {
            report_event(remote, telling, shown, note, &mut repeated)?;
        }
        repeated.report(remote.output, telling.what, shown);
        anyhow::Ok(())
    };
    let both = async { tokio::try_join!(work, listen) };
    let (summary, ()) = bar.during(both).await.map_err(unfinished)?;
    let summary = match summary {
        Ok(summary) => summary,
        Err(error) => {
            let error = with_space_explained(remote, None, error.into()).await;
            return Err(match moved.files() {
                0 => error,
                files => error.context(StoppedEarly {
                    files: count(files, "file"),
                }),
            });
        }
    };
    let found = summary.files + summary.unchanged + summary.existing;
    if found > 0 || summary.failed == 0 {
        sum_up(remote, &summary, moved.sent_bytes(), started);
    }
    if summary.failed > 0 {
        return Err(Reported.into());
    }
    Ok(())
}

fn report_event(
    remote: &RemoteSession,
    telling: ReportOptions,
    bar: &Bar,
    note: TreeEvent,
    repeated: &mut RepeatedFailures,
) -> anyhow::Result<()> {
    match note {
        TreeEvent::Moved {
            remote: path,
            local,
            size,
            digest,
        } => {
            let local = local.display().to_string();
            let moved = Moved {
                remote: &path,
                local,
                size,
                digest,
            };
            if remote.output.is_json() {
                bar.beside(|| print_json(&moved))?;
            } else if telling.verbose {
                let to = if telling.what == "get" {
                    &moved.local
                } else {
                    &path
                };
                bar.beside(|| print(&safe(to)))?;
            }
        }
        TreeEvent::Skipped { path, why } => bar.print(&format!("haul: {path}: skipped: {why}")),
        TreeEvent::Failed { path, error } => {
            if repeated.repeats(&path, &error) && !remote.output.is_json() {
                return Ok(());
            }
            // The message may name the path itself.
            let what = if error.local_path() == Some(Path::new(&path)) {
                telling.what.to_owned()
            } else {
                format!("{} {path}", telling.what)
            };
            bar.print_lines(&error_text(remote.output, &what, &error.into()));
        }
    }
    Ok(())
}

/// Prints the totals. Of `summary.bytes`, those beyond `sent` were on the receiving side already, of files
/// that were resumed.
fn sum_up(remote: &RemoteSession, summary: &TreeSummary, sent: u64, started: Instant) {
    let seconds = started.elapsed().as_secs_f64();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rate for people"
    )]
    let rate = (sent as f64 / seconds.max(0.001)) as u64;
    let mut text = format!(
        "{}, {} in {seconds:.1} s ({}/s)",
        count(summary.files, "file"),
        size(summary.bytes),
        size(rate),
    );
    let resumed = summary.bytes.saturating_sub(sent);
    if resumed > 0 {
        text.extend([", ", &size(resumed), " there already"]);
    }
    for (number, what) in [
        (summary.unchanged, "unchanged"),
        (summary.existing, "existed already"),
        (summary.skipped, "skipped"),
        (summary.failed, "failed"),
    ] {
        if number > 0 {
            text.extend([", ", &number.to_string(), " ", what]);
        }
    }
    if let Some(not_kept) = describe_not_kept(summary.not_kept) {
        text.extend(["; not kept: ", &not_kept]);
    }
    remote.output.note(&text);
}

/// The attributes that a server does not keep, if any entry had some.
fn describe_not_kept(not_kept: NotKept) -> Option<String> {
    let parts: Vec<_> = [
        (not_kept.links, "link"),
        (not_kept.owners, "other owner"),
        (not_kept.holes, "file with holes"),
    ]
    .into_iter()
    .filter(|(number, _)| *number > 0)
    .map(|(number, noun)| match noun {
        "file with holes" if number > 1 => format!("{number} files with holes"),
        noun => count(number, noun),
    })
    .collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

/// Whether a slash marks `path` as a directory whose content is transferred.
pub(super) fn is_content(path: &str) -> bool {
    path.ends_with('/') && last_name(path).is_some()
}

/// Removes those slashes: without a target, one from the completion of a name changes nothing.
pub(super) fn without_content_marks(paths: &mut [String]) {
    for path in paths.iter_mut().filter(|path| is_content(path)) {
        path.truncate(path.trim_end_matches('/').len());
    }
}

/// The target of one path of a transfer to `to`. A slash behind a source sends its content, as with rsync.
pub(super) fn place(to: &str, path: &str, target: TransferTarget) -> String {
    if target == TransferTarget::Directory && !is_content(path) {
        return under_own_name(to, path);
    }
    let name = to.trim_end_matches('/');
    if name.is_empty() { to } else { name }.to_owned()
}

/// The target of `-T`: the new name of one source.
pub(super) fn only_name(to: &str, sources: usize) -> anyhow::Result<TransferTarget> {
    if sources == 1 && to != "-" {
        return Ok(TransferTarget::Name);
    }
    Err(usage(format!(
        "`-T` takes one source and its new name; the target here is {to} for {sources} sources"
    )))
}

/// The directory that `--to` names, written as one.
pub(super) fn named_directory(path: &str) -> anyhow::Result<String> {
    match path {
        "" => Err(usage("`--to` needs the name of a directory")),
        "-" => Err(usage(
            "`--to` needs a directory, and `-` is standard input or output",
        )),
        path => Ok(format!("{}/", path.trim_end_matches('/'))),
    }
}

/// The meaning of the last argument of a command like cp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TransferTarget {
    /// Entries go into it under their own names.
    Directory,
    /// The new name of the only thing that goes there.
    Name,
}

/// The meaning of a path on the server as the target of `sources` entries.
pub(super) async fn remote_target(
    remote: &RemoteSession,
    path: &str,
    sources: usize,
) -> anyhow::Result<TransferTarget> {
    if path.ends_with('/') || last_name(path).is_none() {
        return Ok(TransferTarget::Directory);
    }
    match remote.session.stat(path).await {
        Ok(stat) if stat.entry.kind == Kind::Dir => Ok(TransferTarget::Directory),
        // Where one may write and not look, a path is taken for a new name.
        Ok(_) => several_need_directory(path, sources),
        Err(error) if matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Denied)) => {
            several_need_directory(path, sources)
        }
        Err(error) => Err(error.into()),
    }
}

/// The meaning of a local path as the target of `sources` entries.
pub(super) fn local_target(path: &str, sources: usize) -> anyhow::Result<TransferTarget> {
    if path.ends_with('/') || last_name(path).is_none() || Path::new(path).is_dir() {
        return Ok(TransferTarget::Directory);
    }
    several_need_directory(path, sources)
}

fn several_need_directory(path: &str, sources: usize) -> anyhow::Result<TransferTarget> {
    if sources > 1 {
        return Err(usage(format!(
            "{path} is not a directory: several sources need a directory as the target; \
             to create it, end its name with a slash"
        )));
    }
    Ok(TransferTarget::Name)
}

/// Each of `from` with its new path on the server.
pub(super) async fn into_directory(
    remote: &RemoteSession,
    from: Vec<String>,
    to: &str,
) -> anyhow::Result<Vec<(String, String)>> {
    let target = remote_target(remote, to, from.len()).await?;
    let pairs: Vec<_> = from
        .into_iter()
        .map(|from| match target {
            TransferTarget::Name => (from, to.to_owned()),
            TransferTarget::Directory => {
                let to = under_own_name(to, &from);
                (from, to)
            }
        })
        .collect();
    all_differ(pairs.iter().map(|(_, to)| &**to))?;
    Ok(pairs)
}

/// Refuses to move or copy something to where it is.
pub(super) async fn must_differ(
    remote: &RemoteSession,
    from: &str,
    to: &str,
) -> anyhow::Result<()> {
    if last_name(from) != last_name(to) {
        return Ok(());
    }
    let cwd = if from.starts_with('/') == to.starts_with('/') {
        String::new()
    } else {
        remote.client.pwd().await?
    };
    if absolute(&cwd, from) == absolute(&cwd, to) {
        anyhow::bail!("the source and the target are the same: {to}");
    }
    Ok(())
}

/// Why `from` did not become `to`. The hint at `--if-exists` is kept where it helps: a directory
/// neither replaces anything nor is replaced.
pub(super) async fn why_not(
    remote: &RemoteSession,
    from: &str,
    to: &str,
    error: ClientError,
) -> anyhow::Error {
    if error.code() == Some(ErrorCode::Exists) {
        for path in [from, to] {
            match remote.client.stat(path).await {
                Ok(stat) if stat.entry.kind == Kind::File => {}
                _ => return anyhow::anyhow!("{error}"),
            }
        }
    }
    error.into()
}

/// Refuses a job in which one thing would replace another.
pub(super) fn all_differ<'a>(targets: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    let mut seen = std::collections::HashSet::new();
    for target in targets {
        if !seen.insert(target) {
            return Err(usage(format!(
                "two sources would both be written to {target}"
            )));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_directory_that_to_names_is_written_as_one() {
        for (path, directory) in [("a", "a/"), ("a/b//", "a/b/"), ("/", "/"), (".", "./")] {
            assert_eq!(named_directory(path).expect("a directory"), directory);
        }
        assert!(named_directory("").is_err() && named_directory("-").is_err());
    }

    #[test]
    fn a_slash_behind_a_source_sends_its_content() {
        use TransferTarget::{Directory, Name};
        for (to, path, target, expected) in [
            ("web", "site", Directory, "web/site"),
            ("web", "site/", Directory, "web"),
            ("web/", "a/site/", Directory, "web"),
            ("web", "site/", Name, "web"),
            ("web", "site", Name, "web"),
            ("/", "site/", Directory, "/"),
            (".", "../", Directory, "."),
        ] {
            assert_eq!(place(to, path, target), expected, "{path} {to}");
        }
    }

    #[test]
    fn the_attributes_that_are_lost_are_counted_in_words() {
        let not_kept = NotKept {
            links: 2,
            owners: 0,
            holes: 1,
        };
        let text = describe_not_kept(not_kept);
        assert_eq!(text.as_deref(), Some("2 links, 1 file with holes"));
        assert_eq!(describe_not_kept(NotKept::default()), None);
    }

    #[test]
    fn two_things_do_not_become_one() {
        assert!(all_differ(["a", "b"].into_iter()).is_ok());
        assert!(all_differ(["a", "a"].into_iter()).is_err());
    }

    #[test]
    fn several_things_need_a_directory() {
        assert_eq!(
            local_target(".", 3).expect("there"),
            TransferTarget::Directory
        );
        assert_eq!(
            local_target("new/", 3).expect("named"),
            TransferTarget::Directory
        );
        assert_eq!(
            local_target("new", 1).expect("a name"),
            TransferTarget::Name
        );
        assert!(local_target("new", 2).is_err());
    }
}
