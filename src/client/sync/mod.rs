//! Mirrors of trees: only what differs is transferred.
//!
//! The parts, in the order in which data passes them: `scan` and `remote` list the two sides in one
//! order, without what `filter` leaves out; `merge` pairs the entries of the same path; `rules`
//! compare them; `plan` derives the actions. `renames` finds new files whose content the
//! destination has already. Nothing holds a whole tree.
#![expect(dead_code, reason = "nothing executes a plan yet")]

mod action;
mod entry;
mod filter;
mod merge;
mod names;
mod plan;
mod remote;
mod renames;
mod rules;
mod scan;

pub use crate::client::sync::action::{SkipReason, SyncAction, SyncStage};
pub use crate::client::sync::entry::{SyncEntry, WithheldReason};
pub use crate::client::sync::filter::FilterOptions;
pub use crate::client::sync::rules::{Comparison, MetadataChange, SyncRules, TransferReason};
pub use crate::client::sync::scan::LinkPolicy;
