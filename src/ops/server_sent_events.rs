//! Server-sent events: snapshots of the server, and new log lines.

use std::convert::Infallible;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream::{Stream, iter, once, unfold};
use futures::{StreamExt, future};

use crate::ops::log_lines::LogLineFeed;
use crate::ops::snapshot::{MAX_VIEWERS, SnapshotFeed, Viewer};

/// Sends the event `history` with the samples of the last hour; then, every second, the event `now` with a
/// snapshot, and the event `log` with the new log lines.
pub(crate) async fn live(State(feed): State<SnapshotFeed>) -> Response {
    let Some(viewer) = feed.viewer() else {
        let reason = format!("{MAX_VIEWERS} status pages are open already; close one of them\n");
        let retry = [(RETRY_AFTER, "10")];
        return (StatusCode::SERVICE_UNAVAILABLE, retry, reason).into_response();
    };
    Sse::new(events(viewer)).into_response()
}

/// A slow client gets fewer snapshots, each of them current.
fn events(viewer: Viewer) -> impl Stream<Item = Result<Event, Infallible>> {
    let history = once(future::ready(viewer.history.clone()));
    let rest = unfold(viewer, |mut viewer| async move {
        viewer.now.changed().await.ok()?;
        let now = viewer.now.borrow_and_update().clone();
        let lines = viewer.lines.as_mut().and_then(LogLineFeed::next_event);
        Some((iter([Some(now), lines].into_iter().flatten()), viewer))
    });
    history.chain(rest.flatten()).map(Ok)
}
