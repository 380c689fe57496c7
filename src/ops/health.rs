//! `/healthz`: whether the process responds, for supervisors that restart it otherwise.

/// The process answers.
pub(super) async fn healthz() -> &'static str {
    "ok\n"
}
