//! Is it alive: for what restarts it otherwise.

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}
