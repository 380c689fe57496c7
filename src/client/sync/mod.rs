//! Mirrors of trees: only what differs is transferred.
//!
//! The parts, in the order in which data passes them: `scan` and `remote` list the two sides in one
//! order, without what `filter` leaves out; `merge` pairs the entries of the same path, ahead of the
//! run in `listing`; `rules` compare them, with the `digests` that this needs; `plan` derives the
//! actions. `run` performs them stage by stage, by `files` and `operations`; `deferred` holds those of
//! later `stages`. `renames` finds new files whose content the destination has already. Nothing holds a
//! whole tree.

mod action;
mod context;
mod deferred;
mod digests;
mod entry;
mod files;
mod filter;
mod fingerprint;
mod full;
mod job;
mod listing;
mod local_actions;
mod merge;
mod names;
mod operations;
mod plan;
mod remote;
mod remote_actions;
mod renames;
mod roots;
mod rules;
mod run;
mod scan;
mod staged;
mod staged_paths;
mod stages;

pub use crate::client::sync::action::{SkipReason, SyncAction, SyncStage};
pub use crate::client::sync::entry::{SyncEntry, WithheldReason};
pub use crate::client::sync::filter::FilterOptions;
pub use crate::client::sync::fingerprint::local_fingerprint;
pub use crate::client::sync::job::{
    DEFAULT_SYNC_JOBS, DeletionsLeftOut, SyncDirection, SyncJob, SyncOptions, SyncOutcome,
    SyncSummary,
};
pub use crate::client::sync::rules::{Comparison, MetadataChange, SyncRules, TransferReason};
pub use crate::client::sync::scan::LinkPolicy;
