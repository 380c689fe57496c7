//! `passwd`: another password for the user of this session.

use super::Command;
use crate::accounts::AccountsError;
use crate::protocol::{BadRequest, Nothing, Passwd};
use crate::server::CommandError;
use crate::server::member::Member;

impl Command for Passwd {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let accounts = &member.shared.accounts;
        let account = &member.account;
        match accounts
            .change_password(account, &self.old, &self.new)
            .await
        {
            Ok(()) => Ok(Nothing {}),
            Err(AccountsError::WrongPassword) => {
                member.wrong_passwords += 1;
                Err(AccountsError::WrongPassword.into())
            }
            Err(unfit @ (AccountsError::EmptyPassword | AccountsError::PasswordTooLong)) => {
                // The reply has the request's own id.
                Err(BadRequest::of_field(0, "passwd", "new", unfit.to_string()).into())
            }
            Err(error) => Err(error.into()),
        }
    }
}
