//! The properties of a command that do not depend on a request's fields.

use crate::protocol::CommandHelp;

/// A command's row in the table of commands, [`Request::COMMANDS`](crate::protocol::Request::COMMANDS).
///
/// A row is a constant: [`new`](Self::new), and one call for each property that the command has.
#[expect(
    clippy::struct_excessive_bools,
    reason = "a row of a table, whose properties are independent"
)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CommandInfo {
    /// The command's name on the wire.
    pub name: &'static str,
    /// The names of its fields for `help`, optional ones in brackets.
    pub fields: &'static str,
    /// Its description for `help`.
    pub summary: &'static str,
    /// Its log line belongs to the audit: it logs a user in or changes something.
    pub is_audited: bool,
    /// Its user needs the admin right.
    pub is_admin_only: bool,
    /// It works before login.
    pub works_before_login: bool,
    /// It works while the server drains: it concerns requests that were begun before.
    pub works_while_draining: bool,
    /// It is answered even while the server does not know the rights of its user.
    pub works_while_suspended: bool,
    /// The session reads later requests while it runs.
    pub is_concurrent: bool,
    /// Its duration depends on the size of a file or on the client, not on the server's speed.
    pub is_streaming: bool,
    /// Clients send it to prepare or end what a person asked for, so its log line has the level `debug`.
    pub is_auxiliary: bool,
}

impl CommandInfo {
    /// The classic dialect's command that creates an account.
    pub const REGISTER: Self =
        Self::new("register", "user password", "create an account").audited();

    /// Stands for a command that the protocol does not have.
    pub const UNKNOWN: Self = Self::new("unknown", "", "");

    /// A command without any of the properties.
    #[must_use]
    pub const fn new(name: &'static str, fields: &'static str, summary: &'static str) -> Self {
        Self {
            name,
            fields,
            summary,
            is_audited: false,
            is_admin_only: false,
            works_before_login: false,
            works_while_draining: false,
            works_while_suspended: false,
            is_concurrent: false,
            is_streaming: false,
            is_auxiliary: false,
        }
    }

    /// Sets [`is_audited`](Self::is_audited).
    #[must_use]
    pub const fn audited(mut self) -> Self {
        self.is_audited = true;
        self
    }

    /// Sets [`is_admin_only`](Self::is_admin_only).
    #[must_use]
    pub const fn admin_only(mut self) -> Self {
        self.is_admin_only = true;
        self
    }

    /// Sets [`works_before_login`](Self::works_before_login).
    #[must_use]
    pub const fn before_login(mut self) -> Self {
        self.works_before_login = true;
        self
    }

    /// Sets [`works_while_draining`](Self::works_while_draining).
    #[must_use]
    pub const fn while_draining(mut self) -> Self {
        self.works_while_draining = true;
        self
    }

    /// Sets [`works_while_suspended`](Self::works_while_suspended).
    #[must_use]
    pub const fn unchecked(mut self) -> Self {
        self.works_while_suspended = true;
        self
    }

    /// Sets [`is_concurrent`](Self::is_concurrent).
    #[must_use]
    pub const fn concurrent(mut self) -> Self {
        self.is_concurrent = true;
        self
    }

    /// Sets [`is_streaming`](Self::is_streaming).
    #[must_use]
    pub const fn streaming(mut self) -> Self {
        self.is_streaming = true;
        self
    }

    /// Sets [`is_auxiliary`](Self::is_auxiliary).
    #[must_use]
    pub const fn auxiliary(mut self) -> Self {
        self.is_auxiliary = true;
        self
    }

    /// The command's entry in the reply to `help`.
    #[must_use]
    pub fn to_help(&self) -> CommandHelp {
        let suffix = if self.is_admin_only {
            "; for admins"
        } else {
            ""
        };
        CommandHelp {
            name: self.name.into(),
            summary: format!("{}{suffix}", self.summary),
            fields: self.fields.into(),
        }
    }
}
