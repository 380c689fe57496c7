//! One method for every command that transfers no file.

use std::num::NonZeroU32;

use futures::Stream;
use futures::stream::{self, StreamExt, TryStreamExt};

use crate::client::{Client, ClientError, EventPosition};
use crate::protocol::{
    Accept, Algorithm, Cd, Cp, Decline, Df, DfReply, Discard, Entry, Hash, HashReply, Hello,
    HelloReply, Help, HelpReply, History, HistoryReply, IfExists, Join, Leave, Ls, LsReply, Mkdir,
    Mv, Offers, OffersReply, Passwd, Ping, Pwd, Quit, ResumableUpload, Rm, RmReply, Say, SayReply,
    Secret, SendTo, SessionEntry, Sessions, SetStat, SetStatReply, Stat, StatReply, TimeReply,
    Unwatch, Uploads, UserEntry, Users, Watch, WatchReply, Who, WhoReply, Whoami, WhoamiReply,
};

/// Each sends one request and fails as [`Client::call`] does.
#[expect(clippy::missing_errors_doc, reason = "said once, in the line above")]
impl Client {
    /// The server's name and features; works before login.
    pub async fn hello(&self) -> Result<HelloReply, ClientError> {
        self.call_promptly(Hello {}).await
    }

    /// The user and the folders of this session.
    pub async fn whoami(&self) -> Result<WhoamiReply, ClientError> {
        self.call(Whoami {}).await
    }

    /// Changes the password of this session's user.
    pub async fn passwd(&self, old: &Secret, new: &Secret) -> Result<(), ClientError> {
        let (old, new) = (old.clone(), new.clone());
        self.call_promptly(Passwd { old, new }).await.map(drop)
    }

    /// The server's time. Shows that the server answers.
    pub async fn ping(&self) -> Result<TimeReply, ClientError> {
        self.call_promptly(Ping {}).await
    }

    /// The sessions and their running requests. Only for users with the admin right.
    pub async fn sessions(&self) -> Result<Vec<SessionEntry>, ClientError> {
        let mut all = Vec::new();
        let mut page = Sessions::default();
        loop {
            let cursor = page.cursor.clone();
            let reply = self.call(page).await?;
            all.extend(reply.sessions);
            page = match reply.cursor {
                None => return Ok(all),
                Some(same) if cursor.as_ref() == Some(&same) => {
                    return Err(ClientError::InvalidReply(
                        "a list with the same cursor twice".into(),
                    ));
                }
                cursor => Sessions {
                    cursor,
                    limit: None,
                },
            };
        }
    }

    /// The accounts. Only for users with the admin right.
    pub async fn users(&self) -> Result<Vec<UserEntry>, ClientError> {
        let mut all = Vec::new();
        let mut page = Users::default();
        loop {
            let cursor = page.cursor.clone();
            let reply = self.call(page).await?;
            all.extend(reply.users);
            page = match reply.cursor {
                None => return Ok(all),
                Some(same) if cursor.as_ref() == Some(&same) => {
                    return Err(ClientError::InvalidReply(
                        "a list with the same cursor twice".into(),
                    ));
                }
                cursor => Users {
                    cursor,
                    limit: None,
                },
            };
        }
    }

    /// Ends the session; the server closes the connection.
    pub async fn quit(&self) -> Result<(), ClientError> {
        self.call_promptly(Quit {}).await.map(drop)
    }

    /// The help of every command of the server, or of one.
    pub async fn help(&self, about: Option<&str>) -> Result<HelpReply, ClientError> {
        let about = about.map(str::to_owned);
        self.call(Help { about }).await
    }

    /// The session's current directory.
    pub async fn pwd(&self) -> Result<String, ClientError> {
        self.call(Pwd {}).await.map(|reply| reply.cwd)
    }

    /// Changes the session's current directory and returns it.
    pub async fn cd(&self, path: &str) -> Result<String, ClientError> {
        let path = path.into();
        self.call_promptly(Cd { path }).await.map(|reply| reply.cwd)
    }

    /// One page of a directory, from `cursor` on.
    pub async fn ls_page(
        &self,
        path: &str,
        cursor: Option<String>,
    ) -> Result<LsReply, ClientError> {
        let path = Some(path.to_owned());
        let limit = None;
        let reply = self
            .call(Ls {
                path,
                limit,
                cursor: cursor.clone(),
                ..Ls::default()
            })
            .await?;
        if cursor.is_some() && reply.cursor == cursor {
            let text = "a listing with the same cursor twice";
            return Err(ClientError::InvalidReply(text.into()));
        }
        Ok(reply)
    }

    /// The entries of a directory, one page after another. Sorted within each page.
    pub fn entries(&self, path: &str) -> impl Stream<Item = Result<Entry, ClientError>> + use<> {
        let client = self.clone();
        let path = path.to_owned();
        stream::try_unfold(Some(None), move |next| {
            let client = client.clone();
            let path = path.clone();
            async move {
                let Some(cursor) = next else {
                    return Ok::<_, ClientError>(None);
                };
                let page = client.ls_page(&path, cursor).await?;
                Ok(Some((page.entries, page.cursor.map(Some))))
            }
        })
        .map_ok(|entries| stream::iter(entries).map(Ok))
        .try_flatten()
    }

    /// All entries of a directory, sorted by name. For a large directory use
    /// [`entries`](Self::entries).
    pub async fn ls(&self, path: &str) -> Result<Vec<Entry>, ClientError> {
        let mut entries: Vec<Entry> = self.entries(path).try_collect().await?;
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(entries)
    }

    /// The metadata of a file or directory.
    pub async fn stat(&self, path: &str) -> Result<StatReply, ClientError> {
        self.call(Stat { path: path.into() }).await
    }

    /// Sets the time or the permission bits of a file or directory, and returns what is stored of
    /// them. Only for servers with the feature `mode`.
    pub async fn setstat(&self, change: SetStat) -> Result<SetStatReply, ClientError> {
        self.call(change).await
    }

    /// Makes a directory, with `parents` also its missing parents. Returns its path.
    pub async fn mkdir(&self, path: &str, parents: bool) -> Result<String, ClientError> {
        let path = path.into();
        self.call(Mkdir {
            path,
            parents,
            mode: None,
        })
        .await
        .map(|reply| reply.path)
    }

    /// Removes a file or directory. Returns the number of entries that were deleted, and of those that
    /// the server could not delete.
    pub async fn rm(&self, path: &str, recursive: bool) -> Result<RmReply, ClientError> {
        let path = path.into();
        self.call(Rm { path, recursive }).await
    }

    /// Moves or renames, and returns the new path.
    pub async fn mv(
        &self,
        from: &str,
        to: &str,
        if_exists: IfExists,
    ) -> Result<String, ClientError> {
        let (from, to, if_exists) = (from.into(), to.into(), Some(if_exists));
        self.call(Mv {
            from,
            to,
            if_exists,
        })
        .await
        .map(|reply| reply.path)
    }

    /// Copies on the server, and returns the path of the copy.
    pub async fn cp(
        &self,
        from: &str,
        to: &str,
        if_exists: IfExists,
    ) -> Result<String, ClientError> {
        let (from, to, if_exists) = (from.into(), to.into(), Some(if_exists));
        self.call(Cp {
            from,
            to,
            if_exists,
        })
        .await
        .map(|reply| reply.path)
    }

    /// The digest of a file, computed by the server.
    pub async fn hash(&self, path: &str, algorithm: Algorithm) -> Result<HashReply, ClientError> {
        self.call(Hash {
            path: path.into(),
            digest: Some(algorithm),
            version: None,
        })
        .await
    }

    /// The interrupted uploads that can be resumed.
    pub async fn uploads(&self) -> Result<Vec<ResumableUpload>, ClientError> {
        self.call(Uploads {}).await.map(|reply| reply.uploads)
    }

    /// Deletes an interrupted upload.
    pub async fn discard(&self, upload: &str) -> Result<(), ClientError> {
        let upload = upload.into();
        self.call(Discard { upload }).await.map(drop)
    }

    /// Use and limits of the space around the current directory.
    pub async fn df(&self) -> Result<DfReply, ClientError> {
        self.call(Df {}).await
    }

    /// The connected users.
    pub async fn who(&self) -> Result<WhoReply, ClientError> {
        self.call(Who {}).await
    }

    /// Sends a message to a user, or to a room (`#` and its name). It is stored once this returns.
    pub async fn say(&self, to: &str, text: &str) -> Result<SayReply, ClientError> {
        let (to, text) = (to.into(), text.into());
        self.call(Say { to, text }).await
    }

    /// The last messages with a user or in a room before the one with the `seq` `before`: at most
    /// `limit`, and at most as many as the server sends at a time.
    pub async fn history(
        &self,
        with: &str,
        before: Option<u64>,
        limit: Option<NonZeroU32>,
    ) -> Result<HistoryReply, ClientError> {
        let with = with.into();
        self.call(History {
            with,
            before,
            limit,
        })
        .await
    }

    /// Enters a room, for all sessions of the user and until [`leave`](Self::leave). Returns its
    /// members.
    pub async fn join(&self, room: &str) -> Result<Vec<String>, ClientError> {
        let room = room.into();
        self.call(Join { room }).await.map(|reply| reply.members)
    }

    /// Leaves a room. Returns the remaining members.
    pub async fn leave(&self, room: &str) -> Result<Vec<String>, ClientError> {
        let room = room.into();
        self.call(Leave { room }).await.map(|reply| reply.members)
    }

    /// Offers a file of this user on the server to another. Returns the offer's identifier.
    pub async fn send(&self, to: &str, path: &str) -> Result<String, ClientError> {
        let (to, path) = (to.into(), path.into());
        self.call(SendTo { to, path })
            .await
            .map(|reply| reply.offer)
    }

    /// The files that other users offer to this user.
    pub async fn offers(&self) -> Result<OffersReply, ClientError> {
        self.call(Offers::default()).await
    }

    /// The files that this user offers to others, with the receiver of each.
    pub async fn sent_offers(&self) -> Result<OffersReply, ClientError> {
        self.call(Offers { sent: true }).await
    }

    /// Accepts an offered file. Returns the path of the copy: `path`, or by default an unused name in the
    /// current directory.
    pub async fn accept(&self, offer: &str, path: Option<&str>) -> Result<String, ClientError> {
        let (offer, path) = (offer.into(), path.map(Into::into));
        self.call(Accept { offer, path })
            .await
            .map(|reply| reply.path)
    }

    /// Declines an offered file.
    pub async fn decline(&self, offer: &str) -> Result<(), ClientError> {
        let offer = offer.into();
        self.call(Decline { offer }).await.map(drop)
    }

    /// Adds the changes at and below a path to [`events`](Self::events), from the change after the one with
    /// the `seq` `since` on.
    pub async fn watch(
        &self,
        path: &str,
        since: Option<EventPosition>,
    ) -> Result<WatchReply, ClientError> {
        let path = path.into();
        let (since, epoch) = EventPosition::fields(since);
        self.call(Watch { path, since, epoch }).await
    }

    /// Ends a [`watch`](Self::watch), by the number that it returned.
    pub async fn unwatch(&self, watch: u32) -> Result<(), ClientError> {
        self.call(Unwatch { watch }).await.map(drop)
    }
}
