//! A client certificate.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// A certificate of the user's own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct OwnCertificate {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}
