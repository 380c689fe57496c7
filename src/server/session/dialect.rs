//! The dialect of a session.

/// The dialect that the client of a session speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// Frames, version 1.
    Framed,
    /// The classic dialect, behind its translator: nothing can be resumed, and events are not for
    /// it. It would throw them away, so it must not count as somebody who receives them.
    Classic,
}
