//! `passwd`: another password for the user of this session.

use crate::accounts::AccountsError;
use crate::protocol::{Nothing, Passwd};
use crate::server::commands::Command;
use crate::server::commands::administration::check_password;
use crate::server::commands::login::{queued, throttled};
use crate::server::error::CommandError;
use crate::server::session::member::Member;

impl Command for Passwd {
    async fn apply(self, member: &mut Member) -> Result<Nothing, CommandError> {
        let (shared, block) = (member.shared.clone(), member.address_block);
        let account = member.authority.account()?;
        check_password(member, "new", &self.new)?;
        let change = shared
            .accounts
            .change_password(&account, &self.old, &self.new);
        let change = queued(&shared, block, change);
        let target = shared.login_throttle.user_target(account.name.as_str());
        let changed = throttled(&shared, target, block, change).await;
        let invalid = match changed {
            Ok(()) => return Ok(Nothing {}),
            Err(CommandError::Accounts(
                invalid @ (AccountsError::EmptyPassword | AccountsError::PasswordTooLong),
            )) => invalid,
            Err(error) => {
                let is_guess = matches!(
                    error,
                    CommandError::Accounts(AccountsError::WrongPassword)
                        | CommandError::TooManyAttempts(_)
                );
                member.wrong_passwords += u32::from(is_guess);
                return Err(error);
            }
        };
        Err(CommandError::invalid_field("new", invalid))
    }
}
