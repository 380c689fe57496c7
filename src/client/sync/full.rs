//! A destination without space: what fitted stays, and what cannot fit is not tried.

use std::io;

use crate::client::ClientError;
use crate::client::sync::action::SyncAction;
use crate::client::sync::context::SyncContext;
use crate::client::sync::entry::SyncEntry;
use crate::protocol::{ErrorCode, WireError};

/// The smallest file that did not fit, and why.
#[derive(Debug, Default)]
pub(crate) struct FullDestination {
    refused: Option<(u64, FullReason)>,
}

#[derive(Debug)]
enum FullReason {
    Remote(WireError),
    Local(io::ErrorKind),
}

impl FullDestination {
    /// Notes a failure. Returns whether it means that this file does not fit, which smaller ones may.
    pub(crate) fn note(&mut self, action: &SyncAction, error: &ClientError) -> bool {
        let reason = match error {
            ClientError::NoSpace { error, .. } => FullReason::Remote((**error).clone()),
            ClientError::Server(error)
                if matches!(error.code, ErrorCode::QuotaExceeded | ErrorCode::NoSpace) =>
            {
                FullReason::Remote(error.clone())
            }
            ClientError::Local { error, .. }
                if matches!(
                    error.kind(),
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
                ) =>
            {
                FullReason::Local(error.kind())
            }
            _ => return false,
        };
        if let SyncAction::Transfer { entry, .. } | SyncAction::Copy { entry, .. } = action {
            self.refused = match self.refused.take() {
                Some((size, reason)) if size <= entry.size => Some((size, reason)),
                _ => Some((entry.size, reason)),
            };
        }
        true
    }

    /// The error of a file that is as large as one that did not fit.
    pub(crate) fn refusal(&self, context: &SyncContext, entry: &SyncEntry) -> Option<ClientError> {
        match &self.refused {
            Some((size, reason)) if entry.size >= *size => Some(match reason {
                FullReason::Remote(error) => ClientError::NoSpace {
                    path: context.remote_path(&entry.path),
                    size: Some(entry.size),
                    error: Box::new(error.clone()),
                },
                FullReason::Local(kind) => {
                    ClientError::local("write", context.local_path(&entry.path), (*kind).into())
                }
            }),
            _ => None,
        }
    }
}
