//! Which requests of a ticket were begun, and what they were answered: each is done once, however
//! often and in whatever order its datagrams come.

use std::collections::BTreeMap;

use bytes::Bytes;

/// An id that is so far behind the greatest one is too old.
const WINDOW: u32 = 64;

/// Bytes of replies that are kept to be sent again; beyond, those to the smallest ids are dropped.
const KEPT: usize = 16 * 1024;

/// Requests of one ticket that may be under way at once.
const MOST_UNDER_WAY: usize = 16;

/// The latest ids of a ticket.
#[derive(Debug, Default)]
pub(crate) struct Window {
    begun: BTreeMap<u32, Begun>,
    kept: usize,
}

#[derive(Debug)]
struct Begun {
    /// Tells whether it is the same datagram.
    tag: [u8; 32],
    reply: Reply,
}

#[derive(Debug)]
enum Reply {
    UnderWay,
    Kept(Bytes),
    /// There is none, or no room for it.
    None,
}

/// What to do with a datagram.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is new, and counts as begun now. `latest` if no greater id came before.
    New {
        /// No greater id came before.
        latest: bool,
    },
    /// It was answered, with this.
    Answered(Bytes),
    /// It is under way, or there are too many; its client will come again.
    Wait,
    /// It is too old, its reply is not kept, or another request had its id.
    Never,
}

impl Window {
    /// Looks at a datagram that was verified, and begins it if it is new.
    pub(crate) fn begin(&mut self, id: u32, tag: [u8; 32]) -> Verdict {
        if let Some(begun) = self.begun.get(&id) {
            return match &begun.reply {
                _ if begun.tag != tag => Verdict::Never,
                Reply::UnderWay => Verdict::Wait,
                Reply::Kept(reply) => Verdict::Answered(reply.clone()),
                Reply::None => Verdict::Never,
            };
        }
        let greatest = self.begun.last_key_value().map(|(id, _)| *id);
        let latest = greatest.is_none_or(|greatest| id > greatest);
        if greatest.is_some_and(|greatest| id <= greatest.saturating_sub(WINDOW)) {
            return Verdict::Never;
        }
        let begun = self.begun.values();
        let under_way = begun.filter(|begun| matches!(begun.reply, Reply::UnderWay));
        if under_way.count() >= MOST_UNDER_WAY {
            return Verdict::Wait;
        }
        let reply = Reply::UnderWay;
        self.begun.insert(id, Begun { tag, reply });
        if latest {
            while let Some(oldest) = self.begun.first_entry()
                && *oldest.key() <= id.saturating_sub(WINDOW)
                && *oldest.key() != id
            {
                if let Reply::Kept(reply) = oldest.remove().reply {
                    self.kept -= reply.len();
                }
            }
        }
        Verdict::New { latest }
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
                Reply::Kept(reply)
            }
            None => Reply::None,
        };
        let mut oldest = self.begun.values_mut();
        while self.kept > KEPT
            && let Some(begun) = oldest.next()
        {
            if let Reply::Kept(reply) = &begun.reply {
                self.kept -= reply.len();
                begun.reply = Reply::None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TAG: [u8; 32] = [1; 32];

    const NEW: Verdict = Verdict::New { latest: true };

    fn reply() -> Bytes {
        Bytes::from_static(b"done")
    }

    #[test]
    fn a_repeated_request_is_begun_once_and_answered_again() {
        let mut window = Window::default();
        assert_eq!(window.begin(5, TAG), NEW);
        assert_eq!(window.begin(5, TAG), Verdict::Wait);
        window.finish(5, Some(reply()));
        assert_eq!(window.begin(5, TAG), Verdict::Answered(reply()));
        assert_eq!(window.begin(5, [2; 32]), Verdict::Never, "another content");
        assert_eq!(window.begin(4, TAG), Verdict::New { latest: false });
    }

    #[test]
    fn what_is_older_than_the_window_is_never_begun() {
        let mut window = Window::default();
        assert_eq!(window.begin(100, TAG), NEW);
        assert_eq!(window.begin(36, TAG), Verdict::Never);
        assert_eq!(window.begin(37, TAG), Verdict::New { latest: false });
        assert_eq!(window.begin(u32::MAX, TAG), NEW);
        window.finish(37, Some(reply()));
        assert_eq!(window.begin(100, TAG), Verdict::Never);
        assert_eq!((window.begun.len(), window.kept), (1, 0));
    }

    #[test]
    fn the_first_ids_are_as_good_as_any() {
        let mut window = Window::default();
        assert_eq!(window.begin(0, TAG), NEW);
        assert_eq!(window.begin(0, TAG), Verdict::Wait);
        assert_eq!(window.begin(64, TAG), NEW);
        assert_eq!(window.begin(0, TAG), Verdict::Never);
        assert_eq!(window.begin(1, TAG), Verdict::New { latest: false });
    }

    #[test]
    fn no_more_than_some_are_under_way_at_once() {
        let mut window = Window::default();
        for id in 1..=16 {
            assert_eq!(window.begin(id, TAG), NEW);
        }
        assert_eq!(window.begin(17, TAG), Verdict::Wait);
        window.finish(3, None);
        assert_eq!(window.begin(17, TAG), NEW);
        assert_eq!(window.begin(3, TAG), Verdict::Never, "it has no reply");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

        #[test]
        fn nothing_is_begun_twice_and_what_is_kept_is_bounded(
            ids in prop::collection::vec((0_u32..200, 0_usize..1200), 0..400),
        ) {
            let mut window = Window::default();
            let mut begun = std::collections::HashSet::new();
            for (id, length) in ids {
                if let Verdict::New { .. } = window.begin(id, TAG) {
                    prop_assert!(begun.insert(id), "{} was begun twice", id);
                    window.finish(id, Some(vec![0; length].into()));
                }
                prop_assert!(window.begun.len() <= 64 && window.kept <= KEPT);
                let kept = window.begun.values().map(|begun| match &begun.reply {
                    Reply::Kept(reply) => reply.len(),
                    _ => 0,
                });
                prop_assert_eq!(kept.sum::<usize>(), window.kept);
            }
        }
    }
}
