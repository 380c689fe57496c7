//! The dialect of a session.

/// The dialect that the client of a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Frames, version 1.
    Framed,
    /// The classic dialect, behind its translator: nothing can be resumed, and events are not for
    /// it. Such a session would drop events, so it does not count as a receiver.
    Classic,
}
