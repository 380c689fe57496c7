//! Why an account is suspended.

use std::fmt;
use std::sync::Arc;

/// Why the server does not know the rights of a user.
#[derive(Debug, Clone, Default)]
pub enum SuspensionCause {
    /// The accounts cannot be read.
    #[default]
    AccountsUnreadable,
    /// A home or folder cannot be opened, and why.
    SpaceUnavailable(Arc<str>),
}

impl fmt::Display for SuspensionCause {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AccountsUnreadable => to.write_str("the server cannot read the accounts"),
            Self::SpaceUnavailable(reason) => {
                write!(to, "the server cannot open a home or folder ({reason})")
            }
        }
    }
}
