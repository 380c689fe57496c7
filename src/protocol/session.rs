//! The requests about the session itself: login, identity, help and the end.

use serde::{Deserialize, Serialize};

use crate::protocol::Secret;
use crate::protocol::number::number;

/// `hello`: describes this server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {}

/// `login`: by `user` and `password`, by `token`, or by neither if the client has presented a TLS
/// certificate that names the user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Login {
    /// The user's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// The user's password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Secret>,
    /// A token instead of both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
    /// The `seq` of the last message or offer that this client has. The server sends the later ones. If
    /// absent, it sends those that it has not sent to any session of the user.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "number"
    )]
    pub since: Option<u64>,
    /// The epoch of `since`: the `epoch` in the reply to the login of the session that received it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<String>,
    /// Whether the server sends messages and offers to this session; it does if absent. A program that
    /// does not handle messages leaves them to other sessions of its user.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inbox: Option<bool>,
}

/// `whoami`: describes this session and its user.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Whoami {}

/// `passwd`: changes the password of the user of this session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Passwd {
    /// The present password, also if the session logged in by a token.
    pub old: Secret,
    /// The new password.
    pub new: Secret,
}

/// `ping`: the server's time.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ping {}

/// `quit`: ends the session.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quit {}

/// `help`: describes the commands.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Help {
    /// The name of a command; all commands if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub about: Option<String>,
}
