//! The embedded storage engine: a directory on a local file system.
//!
//! From the bottom up: `fs` opens and syncs files; `tally`, `quota` and `change_log` account for
//! them without knowing a space; `space` joins these under one lock; `space_walk`, `count` and
//! `reservation` work on spaces; `fs::resolved_path` resolves a member's path to one; the
//! operations (`copy`, `rename`, `remove`, `make_dir`, `listing`, `upload`) take resolved paths;
//! `store` and `view` are the interface. `set_metadata` and `tree_listing` extend the view.

pub(crate) mod access;
pub(crate) mod backup;
pub(crate) mod backup_pass;
pub(crate) mod change_log;
pub(crate) mod copy;
pub(crate) mod count;
pub(crate) mod count_queue;
pub(crate) mod data;
pub(crate) mod file;
pub(crate) mod fs;
pub(crate) mod listed_entry;
pub(crate) mod listing;
pub(crate) mod make_dir;
pub(crate) mod quota;
pub(crate) mod record_change;
pub(crate) mod remove;
pub(crate) mod rename;
pub(crate) mod reservation;
pub(crate) mod set_metadata;
pub(crate) mod space;
pub(crate) mod space_count;
pub(crate) mod space_use;
pub(crate) mod space_walk;
pub(crate) mod store;
pub(crate) mod tally;
pub(crate) mod tree_listing;
pub(crate) mod upload;
pub(crate) mod view;
