//! Server-sent events: snapshots and log lines, as they come.

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

/// `history` first: the last hour in samples. Then, once a second, `now`: what there is; and `log`:
/// the lines since then.
pub(crate) async fn live(State(board): State<SnapshotFeed>) -> Response {
    let Some(viewer) = board.viewer() else {
        let why = format!("{MAX_VIEWERS} are looking already: close one of these pages\n");
        return (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "10")], why).into_response();
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
