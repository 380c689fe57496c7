//! The commit of a group, and its effects after success and after failure.

use std::sync::atomic::Ordering;

use tracing::{error, info};

use crate::messages::commit_group::CommitGroup;
use crate::messages::error::MessagesError;
use crate::messages::operation::reply;
use crate::messages::sequencer::{RESERVED_SEQS, RETRY_DELAY, Sequencer};

impl Sequencer {
    /// Commits a group, then replies and delivers.
    pub(crate) async fn commit(&mut self, mut group: CommitGroup) {
        self.apply_presence(&mut group.presence);
        let had_failed = self.failed_at.is_some();
        let is_pausing = self.failed_at.is_some_and(|at| at.elapsed() < RETRY_DELAY);
        if !(is_pausing && group.batch.is_empty()) {
            group.batch.inboxes = std::mem::take(&mut self.unsaved_inboxes);
        }
        if self.unsaved_inboxes.is_empty() {
            group
                .acknowledgements
                .append(&mut self.unsaved_acknowledgements);
        } else {
            self.unsaved_acknowledgements
                .append(&mut group.acknowledgements);
        }
        let needs_seqs = self.reserved_left() < RESERVED_SEQS / 2 || had_failed;
        if needs_seqs && !(is_pausing && group.batch.is_empty()) {
            group.batch.reserved = Some(self.last_seq + RESERVED_SEQS);
        }
        if !group.batch.is_empty() {
            if let Err(cause) = self.writer.commit(&group.batch).await {
                self.fail(group, &cause);
                return;
            }
            if self.failed_at.take().is_some() {
                info!(name: "messages_stored_again", "messages can be stored again");
            }
            self.shared.is_failing.store(false, Ordering::Relaxed);
        }
        self.complete(group);
    }

    /// Replies and delivers after a successful commit.
    pub(crate) fn complete(&mut self, group: CommitGroup) {
        if let Some(reserved) = group.batch.reserved {
            self.reserved = reserved;
        }
        for acknowledgement in group.acknowledgements {
            acknowledgement.send();
        }
        for (done, members) in group.membership_replies {
            reply(done, Ok(members));
        }
        for done in group.offer_replies {
            reply(done, Ok(()));
        }
        self.deliver(group.batch.messages, group.message_replies);
        self.changes
            .dispatch(&self.shared, group.file_changes, group.lost_up_to);
        for done in group.flush_replies {
            // The requester may have gone.
            let _ = done.send(());
        }
    }

    /// Undoes the effects of a group whose commit failed, and fails its requests. File changes are
    /// delivered nevertheless.
    pub(crate) fn fail(&mut self, mut group: CommitGroup, cause: &MessagesError) {
        error!(name: "messages_not_stored", error = %cause, "cannot store messages");
        self.mark_failed();
        for change in group.room_changes.drain(..).rev() {
            self.rooms.undo(change);
        }
        let changes = std::mem::take(&mut group.file_changes);
        self.changes
            .dispatch(&self.shared, changes, group.lost_up_to);
        let MessagesError::Database { doing, source } = cause else {
            return;
        };
        group.fail_requests(doing, source);
        // These messages are stored, but their inbox positions are not. A reply now would promise
        // that a crash cannot repeat them.
        self.unsaved_acknowledgements.extend(group.acknowledgements);
        for (user, inbox) in group.batch.inboxes {
            self.unsaved_inboxes.entry(user).or_insert(inbox);
        }
    }
}
