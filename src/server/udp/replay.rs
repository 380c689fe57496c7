//! The replay window of a ticket: the latest requests and their replies. Each request runs once, however
//! often and in whatever order its datagrams arrive.

use std::collections::BTreeMap;

use bytes::Bytes;

/// An id that is this far below the greatest one is too old.
const WINDOW_IDS: u32 = 64;

/// The most bytes of kept replies; beyond that, those with the smallest ids are dropped.
const MAX_KEPT_REPLY_BYTES: usize = 16 * 1024;

/// The most concurrent requests of one ticket.
const MAX_PENDING_REQUESTS: usize = 16;

/// The latest ids of a ticket.
#[derive(Debug, Default)]
pub(crate) struct ReplayWindow {
    begun: BTreeMap<u32, ReplayEntry>,
    kept: usize,
}

#[derive(Debug)]
struct ReplayEntry {
    /// Identifies the datagram.
    tag: [u8; 32],
    reply: ReplayReply,
}

#[derive(Debug)]
enum ReplayReply {
    Pending,
    Kept(Bytes),
    /// There is no reply, or it was too long to keep.
    None,
}

/// The decision about a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ReplayVerdict {
    /// It is new, and recorded now.
    New {
        /// No greater id came before.
        latest: bool,
    },
    /// It was answered before, with this reply.
    Answered(Bytes),
    /// It is running, or too many requests are; the client repeats it later.
    Wait,
    /// It is too old, its reply is not kept, or another request had its id.
    Never,
}

impl ReplayWindow {
    /// Classifies a verified datagram, and records it if it is new.
    pub(crate) fn begin(&mut self, id: u32, tag: [u8; 32]) -> ReplayVerdict {
        if let Some(begun) = self.begun.get(&id) {
            return match &begun.reply {
                _ if begun.tag != tag => ReplayVerdict::Never,
                ReplayReply::Pending => ReplayVerdict::Wait,
                ReplayReply::Kept(reply) => ReplayVerdict::Answered(reply.clone()),
                ReplayReply::None => ReplayVerdict::Never,
            };
        }
        let greatest = self.begun.last_key_value().map(|(id, _)| *id);
        let latest = greatest.is_none_or(|greatest| id > greatest);
        if greatest.is_some_and(|greatest| id <= greatest.saturating_sub(WINDOW_IDS)) {
            return ReplayVerdict::Never;
        }
        let begun = self.begun.values();
        let under_way = begun.filter(|begun| matches!(begun.reply, ReplayReply::Pending));
        if under_way.count() >= MAX_PENDING_REQUESTS {
            return ReplayVerdict::Wait;
        }
        let reply = ReplayReply::Pending;
        self.begun.insert(id, ReplayEntry { tag, reply });
        if latest {
            while let Some(oldest) = self.begun.first_entry()
                && *oldest.key() <= id.saturating_sub(WINDOW_IDS)
                && *oldest.key() != id
            {
                if let ReplayReply::Kept(reply) = oldest.remove().reply {
                    self.kept -= reply.len();
                }
            }
        }
        ReplayVerdict::New { latest }
    }

    /// Keeps the reply to what was begun.
    pub(crate) fn finish(&mut self, id: u32, reply: Option<Bytes>) {
        // A much later request may have pushed it out.
        let Some(begun) = self.begun.get_mut(&id) else {
            return;
        };
        begun.reply = match reply {
            Some(reply) => {
                self.kept += reply.len();
                ReplayReply::Kept(reply)
            }
            None => ReplayReply::None,
        };
        let mut oldest = self.begun.values_mut();
        while self.kept > MAX_KEPT_REPLY_BYTES
            && let Some(begun) = oldest.next()
        {
            if let ReplayReply::Kept(reply) = &begun.reply {
                self.kept -= reply.len();
                begun.reply = ReplayReply::None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: [u8; 32] = [1; 32];

    const NEW: ReplayVerdict = ReplayVerdict::New { latest: true };

    fn reply() -> Bytes {
        Bytes::from_static(b"done")
    }

    #[test]
    fn a_repeated_request_is_begun_once_and_answered_again() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.begin(5, TAG), NEW);
        assert_eq!(window.begin(5, TAG), ReplayVerdict::Wait);
        window.finish(5, Some(reply()));
        assert_eq!(window.begin(5, TAG), ReplayVerdict::Answered(reply()));
        assert_eq!(
            window.begin(5, [2; 32]),
            ReplayVerdict::Never,
            "another content"
        );
        assert_eq!(window.begin(4, TAG), ReplayVerdict::New { latest: false });
    }

    #[test]
    fn a_request_older_than_the_window_is_not_run() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.begin(100, TAG), NEW);
        assert_eq!(window.begin(36, TAG), ReplayVerdict::Never);
        assert_eq!(window.begin(37, TAG), ReplayVerdict::New { latest: false });
        assert_eq!(window.begin(u32::MAX, TAG), NEW);
        window.finish(37, Some(reply()));
        assert_eq!(window.begin(100, TAG), ReplayVerdict::Never);
        assert_eq!((window.begun.len(), window.kept), (1, 0));
    }

    #[test]
    fn the_first_ids_are_as_good_as_any() {
        let mut window = ReplayWindow::default();
        assert_eq!(window.begin(0, TAG), NEW);
        assert_eq!(window.begin(0, TAG), ReplayVerdict::Wait);
        assert_eq!(window.begin(64, TAG), NEW);
        assert_eq!(window.begin(0, TAG), ReplayVerdict::Never);
        assert_eq!(window.begin(1, TAG), ReplayVerdict::New { latest: false });
    }

    #[test]
    fn no_more_than_some_are_under_way_at_once() {
        let mut window = ReplayWindow::default();
        for id in 1..=16 {
            assert_eq!(window.begin(id, TAG), NEW);
        }
        assert_eq!(window.begin(17, TAG), ReplayVerdict::Wait);
        window.finish(3, None);
        assert_eq!(window.begin(17, TAG), NEW);
        assert_eq!(
            window.begin(3, TAG),
            ReplayVerdict::Never,
            "it has no reply"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn nothing_is_begun_twice_and_what_is_kept_is_bounded(
            ids in prop::collection::vec((0_u32..200, 0_usize..1200), 0..400),
        ) {
            let mut window = ReplayWindow::default();
            let mut begun = std::collections::HashSet::new();
            for (id, length) in ids {
                if let ReplayVerdict::New { .. } = window.begin(id, TAG) {
                    prop_assert!(begun.insert(id), "{} was begun twice", id);
                    window.finish(id, Some(vec![0; length].into()));
                }
                prop_assert!(window.begun.len() <= 64 && window.kept <= MAX_KEPT_REPLY_BYTES);
                let kept = window.begun.values().map(|begun| match &begun.reply {
                    ReplayReply::Kept(reply) => reply.len(),
                    _ => 0,
                });
                prop_assert_eq!(kept.sum::<usize>(), window.kept);
            }
        }
    }
}
