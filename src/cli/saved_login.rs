//! How the client logs in to a server again.

use serde::{Deserialize, Serialize};

use crate::cli::own_certificate::OwnCertificate;
use crate::protocol::Secret;

/// A way to log in, as the file of profiles holds it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SavedLogin {
    /// The user's password, for servers that make no tokens over the wire.
    Password(Secret),
    /// A token that the user gave.
    Token(Secret),
    /// A token that `haul connect` made for this device.
    Device(DeviceToken),
    /// The paths of a client certificate and its key.
    Certificate(OwnCertificate),
}

/// The token of this device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct DeviceToken {
    pub(crate) token: Secret,
    /// Its number, by which it is revoked.
    pub(crate) number: u64,
}

impl SavedLogin {
    /// The way in words, for a list.
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Password(_) => "password".into(),
            Self::Token(_) => "token".into(),
            Self::Device(device) => format!("device token {}", device.number),
            Self::Certificate(_) => "certificate".into(),
        }
    }

    /// The token, if that is the way.
    pub(crate) fn token(&self) -> Option<&Secret> {
        match self {
            Self::Token(token) => Some(token),
            Self::Device(device) => Some(&device.token),
            Self::Password(_) | Self::Certificate(_) => None,
        }
    }
}
