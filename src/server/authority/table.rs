//! The authorities that are in use, by credential and by user name.

use std::collections::HashMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::accounts::Credential;
use crate::messages::UserRef;
use crate::server::authority::live_authority::Authority;
use crate::storage::Store;

/// All authorities that are in use. It does not keep them alive.
#[derive(Debug, Default)]
pub(crate) struct AuthorityTable(Mutex<AuthorityIndexes>);

#[derive(Debug, Default)]
struct AuthorityIndexes {
    by_credential: HashMap<Credential, Weak<Authority>>,
    /// One user may have several, by different credentials.
    by_name: HashMap<Arc<str>, Vec<Weak<Authority>>>,
    /// The number of credentials at which those that are no longer in use are removed. It is twice the number
    /// after the last time, so that a login pays for a constant number of them.
    cleanup_size: usize,
}

/// The number of credentials below which none are removed.
const MIN_CLEANUP_SIZE: usize = 64;

impl AuthorityIndexes {
    fn remove_names(&mut self, is_gone: impl Fn(&Weak<Authority>) -> bool) {
        self.by_name.retain(|_, all| {
            all.retain(|one| !is_gone(one));
            !all.is_empty()
        });
    }

    fn remove_unused_if_many(&mut self) {
        if self.by_credential.len() < self.cleanup_size {
            return;
        }
        self.by_credential.retain(|_, one| one.strong_count() > 0);
        self.remove_names(|one| one.strong_count() == 0);
        self.cleanup_size = MIN_CLEANUP_SIZE.max(2 * self.by_credential.len());
    }
}

impl AuthorityTable {
    /// The authority of a credential; a new, suspended one if there is none that is open.
    pub(crate) fn get_or_insert(
        &self,
        store: &Store,
        credential: Credential,
        name: &str,
    ) -> Arc<Authority> {
        let mut indexes = self.0.lock();
        indexes.remove_unused_if_many();
        let known = indexes
            .by_credential
            .get(&credential)
            .and_then(Weak::upgrade);
        if let Some(known) = known.filter(|known| !known.closed.is_cancelled()) {
            return known;
        }
        let new = Arc::new(Authority::new(store, credential, name));
        let weak = Arc::downgrade(&new);
        indexes.by_credential.insert(credential, weak.clone());
        let same_name = indexes
            .by_name
            .entry(Arc::clone(&new.user.name))
            .or_default();
        same_name.retain(|one| one.strong_count() > 0);
        same_name.push(weak);
        new
    }

    /// The user called `name`, if they are connected.
    pub(crate) fn connected(&self, name: &str) -> Option<UserRef> {
        let indexes = self.0.lock();
        let mut live = indexes.by_name.get(name)?.iter().filter_map(Weak::upgrade);
        let found = live.find(|one| one.account().is_ok())?;
        Some(found.user.clone())
    }

    /// Closes an authority and removes it.
    pub(crate) fn close(&self, authority: &Arc<Authority>) {
        authority.close();
        let mut indexes = self.0.lock();
        let is_it = |one: &Weak<Authority>| one.as_ptr() == Arc::as_ptr(authority);
        indexes.by_credential.retain(|_, one| !is_it(one));
        indexes.remove_names(is_it);
    }

    /// All authorities that are in use.
    pub(crate) fn live(&self) -> Vec<Arc<Authority>> {
        let indexes = self.0.lock();
        let live = indexes.by_credential.values();
        live.filter_map(Weak::upgrade).collect()
    }
}
