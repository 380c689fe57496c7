//! The entries of a tree on the server, as they come.

use std::cmp::Ordering;
use std::fmt;

use crate::client::line_stream::LineStream;
use crate::client::session::{CurrentConnection, SpentAttempts};
use crate::client::{ClientError, Progress, Session};
use crate::protocol::{Entry, Ls, LsBegin, LsReply};

/// A recursive listing. If a connection is lost it continues over the next one, behind the entry that
/// came last.
pub struct TreeEntries {
    session: Session,
    /// Its cursor is the path of the last entry.
    request: Ls,
    connected: Option<(CurrentConnection, LineStream)>,
    /// Whether an entry has come since the last request.
    has_advanced: bool,
    is_complete: bool,
    progress: Progress,
    /// Attempts since the last entry came.
    spent: Option<SpentAttempts>,
}

impl fmt::Debug for TreeEntries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut fields = f.debug_struct("TreeEntries");
        fields.field("session", &self.session);
        fields.field("request", &self.request);
        fields.finish_non_exhaustive()
    }
}

impl Session {
    /// The entries of the tree below the directory `path`, with the `digests` that the server keeps if
    /// they are wanted. Only servers whose `features` have `recursive` list trees.
    ///
    /// The server alone chooses the names: whoever writes files by them checks them.
    #[must_use]
    pub fn tree_entries(&self, path: &str, digests: bool) -> TreeEntries {
        TreeEntries {
            session: self.clone(),
            request: Ls {
                path: Some(path.to_owned()),
                recursive: true,
                digests,
                ..Ls::default()
            },
            connected: None,
            has_advanced: false,
            is_complete: false,
            progress: Progress::new(),
            spent: None,
        }
    }
}

impl TreeEntries {
    /// The reason for waiting, while the connection is lost.
    #[must_use]
    pub fn progress(&self) -> &Progress {
        &self.progress
    }

    /// The next entry, whose name is its path relative to the directory; `None` after the last one. A
    /// directory comes right before its content, and paths are sorted component by component, byte by
    /// byte. Cancel-safe, but a wait for another connection begins anew.
    ///
    /// # Errors
    /// Why the server does not list the tree, or why there is no connection any more.
    /// [`ClientError::InvalidReply`] if the entries are out of order.
    pub async fn next(&mut self) -> Result<Option<Entry>, ClientError> {
        while !self.is_complete {
            let (current, lines) = if let Some(connected) = &mut self.connected {
                connected
            } else {
                let current = self.session.current();
                self.has_advanced = false;
                match LineStream::begin::<LsBegin>(&current.client, &self.request).await {
                    Ok((begin, lines)) => {
                        let path = self.request.path.as_deref();
                        if path.is_some_and(|path| path.starts_with('/') && path != begin.path) {
                            let text = "the tree of another directory";
                            return Err(ClientError::InvalidReply(text.into()));
                        }
                        self.connected.insert((current, lines))
                    }
                    Err(error) => {
                        self.wait(&current, error).await?;
                        continue;
                    }
                }
            };
            let ended = match lines.next().await {
                Some(Ok(line)) => return self.accept(&line).map(Some),
                Some(Err(error)) => Err(error),
                None => lines.reply::<LsReply>().await,
            };
            match ended {
                Ok(reply) => {
                    self.connected = None;
                    if !reply.entries.is_empty() {
                        let text = "entries of a tree in its final reply";
                        return Err(ClientError::InvalidReply(text.into()));
                    }
                    self.is_complete = reply.cursor.is_none();
                    self.check_cursor(reply.cursor.as_deref())?;
                }
                Err(error) => {
                    let current = current.clone();
                    self.wait(&current, error).await?;
                }
            }
        }
        Ok(None)
    }

    /// Ends the request that is under way, so that other replies of the connection need not wait behind its
    /// entries. [`next`](Self::next) makes another, which continues after the last entry.
    pub(crate) fn pause(&mut self) {
        self.connected = None;
    }

    /// Notes an entry as the last one. An entry out of order would mislead whoever merges the tree
    /// with another, and might let the listing go in circles.
    fn accept(&mut self, line: &[u8]) -> Result<Entry, ClientError> {
        let entry: Entry = serde_json::from_slice(line)
            .map_err(|error| ClientError::InvalidReply(format!("an entry of a tree: {error}")))?;
        let last = self.request.cursor.as_deref();
        if last.is_some_and(|last| compare_paths(last, &entry.name) != Ordering::Less) {
            let text = "entries of a tree that are out of order";
            return Err(ClientError::InvalidReply(text.into()));
        }
        self.session.note_success();
        self.has_advanced = true;
        self.spent = None;
        self.request.cursor = Some(entry.name.clone());
        Ok(entry)
    }

    fn check_cursor(&self, cursor: Option<&str>) -> Result<(), ClientError> {
        if cursor.is_none() || (self.has_advanced && cursor == self.request.cursor.as_deref()) {
            return Ok(());
        }
        let text = "a cursor that is not the last entry of the listing";
        Err(ClientError::InvalidReply(text.into()))
    }

    async fn wait(
        &mut self,
        used: &CurrentConnection,
        error: ClientError,
    ) -> Result<(), ClientError> {
        self.connected = None;
        let spent = self.spent.clone();
        let spent = spent.unwrap_or_else(|| self.session.new_attempts());
        let mut budget = self.session.continued_budget(&self.progress, spent);
        let waited = budget.wait_after(used, error).await;
        self.spent = Some(budget.spent());
        waited
    }
}

/// Compares two relative paths in the order of a recursive listing: component by component, byte by
/// byte.
fn compare_paths(a: &str, b: &str) -> Ordering {
    a.split('/').cmp(b.split('/'))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;

    use super::*;
    use crate::client::RetryPolicy;
    use crate::client::tests::{ScriptedServer, no, pair};
    use crate::protocol::{ErrorCode, Frame, Kind, Request, encode_begin, encode_error, encode_ok};

    /// Answers the next listing up to its final reply. Returns the cursor that it was asked for.
    async fn send_lines(peer: &mut ScriptedServer, names: &[&str]) -> (u32, Option<String>) {
        let (id, Request::Ls(ls)) = peer.request().await else {
            panic!("expected a listing");
        };
        assert!(ls.recursive);
        let path = "/top".into();
        peer.say(encode_begin(id, &LsBegin { path })).await;
        for name in names {
            let entry = Entry::new(*name, Kind::File, 0, jiff::Timestamp::UNIX_EPOCH);
            let mut line = serde_json::to_vec(&entry).expect("JSON");
            line.push(b'\n');
            // A line may come in two pieces.
            for part in [&line[..7], &line[7..]] {
                let chunk = Bytes::copy_from_slice(part);
                peer.send(Frame::Data { stream: id, chunk }).await;
            }
        }
        (id, ls.cursor)
    }

    async fn finish(peer: &mut ScriptedServer, id: u32, cursor: Option<&str>) {
        let reply = LsReply {
            entries: Vec::new(),
            cursor: cursor.map(Into::into),
        };
        peer.say(encode_ok(id, &reply)).await;
    }

    async fn all(mut entries: TreeEntries) -> Result<Vec<String>, ClientError> {
        let mut names = Vec::new();
        while let Some(entry) = entries.next().await? {
            names.push(entry.name);
        }
        Ok(names)
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_goes_on_after_a_page_and_after_a_lost_connection() {
        let ((first, mut peer), (second, mut next_peer)) = (pair(), pair());
        let next_client = Mutex::new(Some(second));
        let session = Session::new(first, RetryPolicy::default(), move || {
            let client = next_client.lock().expect("no panic").take();
            async move { Ok(client.expect("one more connection")) }
        });
        let script = async move {
            let (id, cursor) = send_lines(&mut peer, &["a", "a/b"]).await;
            assert_eq!(cursor, None);
            finish(&mut peer, id, Some("a/b")).await;
            let (_, cursor) = send_lines(&mut peer, &["a.txt"]).await;
            assert_eq!(cursor.as_deref(), Some("a/b"));
            drop(peer);
            let (id, cursor) = send_lines(&mut next_peer, &["b"]).await;
            assert_eq!(cursor.as_deref(), Some("a.txt"));
            finish(&mut next_peer, id, None).await;
            next_peer
        };
        let (names, _peer) = tokio::join!(all(session.tree_entries("top", true)), script);
        assert_eq!(names.expect("listed"), ["a", "a/b", "a.txt", "b"]);
    }

    #[tokio::test]
    async fn entries_out_of_order_and_cursors_that_lead_nowhere_are_refused() {
        for (names, cursor) in [
            (&["b", "a"][..], None),
            (&["a", "a"], None),
            (&["a.txt", "a/b"], None),
            (&["a"], Some("b")),
            (&[], Some("a")),
        ] {
            let (client, mut peer) = pair();
            let script = async move {
                let (id, _) = send_lines(&mut peer, names).await;
                finish(&mut peer, id, cursor).await;
                peer
            };
            let session = Session::from(client);
            let (listed, _peer) = tokio::join!(all(session.tree_entries("top", true)), script);
            assert!(
                matches!(listed, Err(ClientError::InvalidReply(_))),
                "{names:?}"
            );
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_is_always_refused_for_now_ends() {
        let (client, mut peer) = pair();
        let policy = RetryPolicy {
            attempts: 3,
            ..RetryPolicy::default()
        };
        let session = Session::new(client, policy, || async { Err(ClientError::TransferEnded) });
        let script = async move {
            let mut requests = 0;
            while let Some((id, _)) = peer.next_request().await {
                requests += 1;
                peer.say(encode_error(id, &no(ErrorCode::Limited))).await;
            }
            requests
        };
        let listing = async {
            let listed = all(session.tree_entries("top", false)).await;
            drop(session);
            listed
        };
        let (listed, requests) = tokio::join!(listing, script);
        assert!(matches!(listed, Err(ClientError::Server(_))), "{listed:?}");
        assert_eq!(requests, 4);
    }
}
