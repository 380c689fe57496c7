//! `watch` and `unwatch`: hear of what changes at or below a path, or hear no more of it.

use bytes::Bytes;

use crate::messages::{Attendance, Scope};
use crate::protocol::{Nothing, Unwatch, Watch, encode_ok};
use crate::server::CommandError;
use crate::server::member::Member;
use crate::storage::{Seen, StorageError, View, VirtualPath};

/// Begins a watch. It belongs to the session, and ends with it.
pub(in crate::server) async fn watch(
    id: u32,
    watch: Watch,
    member: &Member,
    attendance: &Attendance,
) -> Result<Bytes, CommandError> {
    let path = member.resolve(&watch.path)?;
    let text = path.to_string();
    let seen = member.with_view(move |view| view.watch(&path)).await?;
    let messages = &member.shared.messages;
    let since = watch.since.map(|since| {
        let is_known = messages.has_given(since, watch.epoch.as_deref());
        // What is of another server counts as of the future: the session is to look again.
        if is_known { since } else { u64::MAX }
    });
    let reply = attendance.watch(text, scopes(seen), since).await?;
    Ok(encode_ok(id, &reply))
}

/// Ends a watch.
pub(in crate::server) async fn unwatch(
    id: u32,
    unwatch: &Unwatch,
    attendance: &Attendance,
) -> Result<Bytes, CommandError> {
    if !attendance.unwatch(unwatch.watch).await? {
        return Err(CommandError::NoWatch(unwatch.watch));
    }
    Ok(encode_ok(id, &Nothing {}))
}

/// Has the session's watches cover what the member may see now. What is not known to be allowed is
/// not told.
pub(in crate::server) async fn rescope(
    member: &Member,
    attendance: &Attendance,
) -> Result<(), CommandError> {
    let watched = attendance.watched().await?;
    if watched.is_empty() {
        return Ok(());
    }
    let numbers: Vec<_> = watched.iter().map(|(number, _)| *number).collect();
    let look = |view: &View| {
        let seen = |(number, path): (u32, String)| {
            let path = VirtualPath::parse(&path).map_err(StorageError::from);
            let seen = path.and_then(|path| view.seen(&path));
            (number, scopes(seen.unwrap_or_default()))
        };
        Ok(watched.into_iter().map(seen).collect::<Vec<_>>())
    };
    let looked = member.with_view(look).await;
    let (scopes, outcome) = match looked {
        Ok(scopes) => (scopes, Ok(())),
        Err(error) => {
            let nothing = numbers.into_iter().map(|number| (number, Vec::new()));
            (nothing.collect(), Err(error))
        }
    };
    for (number, scopes) in scopes {
        attendance.rescope(number, scopes)?;
    }
    outcome
}

/// What a watch covers.
fn scopes(seen: Vec<Seen>) -> Vec<Scope> {
    let scopes = seen.into_iter().map(|seen| Scope {
        space: seen.space,
        inner: seen.inner.to_string(),
        path: seen.path.to_string(),
        hidden: seen.hidden,
    });
    scopes.collect()
}
