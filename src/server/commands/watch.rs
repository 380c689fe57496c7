//! `watch` and `unwatch`: hear of what changes at or below a path, or hear no more of it.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::watch::Receiver;
use tracing::warn;

use crate::messages::Subscription;
use crate::protocol::{Nothing, Unwatch, Watch, encode_ok};
use crate::server::authority::AuthorityState;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::storage::{StorageError, View, VirtualPath};

/// Begins a watch. It belongs to the session, and ends with it.
pub(crate) async fn watch(
    id: u32,
    watch: Watch,
    member: &Member,
    subscription: &Subscription,
) -> Result<Bytes, CommandError> {
    let path = member.resolve(&watch.path)?;
    let text = path.to_string();
    let changes = member.authority.changes();
    let seen = member.with_view(move |view| view.watch(&path)).await?;
    let messages = &member.shared.messages;
    let since = watch.since.map(|since| {
        let is_known = messages.has_issued(since, watch.epoch.as_deref());
        // What is of another server counts as of the future: the session is to look again.
        if is_known { since } else { u64::MAX }
    });
    let reply = subscription.watch(text, seen, since).await?;
    if changes.has_changed().is_ok_and(|changed| changed) {
        // The watches were kept to what the member may list before this one was among them.
        subscription.restrict_watches(Vec::new())?;
        rescope(member, subscription, &member.authority.changes()).await?;
    }
    Ok(encode_ok(id, &reply))
}

/// Ends a watch.
pub(crate) async fn unwatch(
    id: u32,
    unwatch: &Unwatch,
    subscription: &Subscription,
) -> Result<Bytes, CommandError> {
    if !subscription.unwatch(unwatch.watch).await? {
        return Err(CommandError::NoWatch(unwatch.watch));
    }
    Ok(encode_ok(id, &Nothing {}))
}

/// Looks up again what the session's watches cover whenever the member may see something else. Never
/// ends.
///
/// The watches lose the paths that the member may no longer list when the access changes, before any
/// event is delivered.
#[expect(
    clippy::manual_async_fn,
    reason = "a block uses what it captures in place; the future of an `async fn` holds its arguments twice"
)]
pub(crate) fn follow_access(
    member: Member,
    subscription: Arc<Subscription>,
) -> impl Future<Output = Infallible> + Send {
    async move {
        let mut changes = member.authority.changes();
        while changes.changed().await.is_ok() {
            // Boxed, so that the future of an idle session does not include it.
            let followed = Box::pin(rescope(&member, &subscription, &changes)).await;
            if let Err(error) = followed {
                warn!(
                    name: "watch_unreadable",
                    %error,
                    "cannot tell what the session may watch now"
                );
            }
        }
        std::future::pending().await
    }
}

/// Makes the watches cover what the member may see now, unless that changes meanwhile.
async fn rescope(
    member: &Member,
    subscription: &Subscription,
    changes: &Receiver<AuthorityState>,
) -> Result<(), CommandError> {
    if member.check_in_force().is_err() {
        return Ok(());
    }
    let watched = subscription.list_watches().await?;
    if watched.is_empty() {
        return Ok(());
    }
    let look = |view: &View| {
        let seen = |(number, path): (u32, String)| {
            let path = VirtualPath::parse(&path).map_err(StorageError::from);
            let seen = path.and_then(|path| view.visible_paths(&path));
            (number, seen.unwrap_or_default())
        };
        Ok(watched.into_iter().map(seen).collect::<Vec<_>>())
    };
    for (number, scopes) in member.with_view(look).await? {
        if changes.has_changed().is_ok_and(|changed| changed) {
            break;
        }
        subscription.set_watch_scopes(number, scopes)?;
    }
    Ok(())
}
