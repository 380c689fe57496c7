//! Outcomes of logins, by method.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::protocol::{ErrorCode, Login};

/// The method of a login.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginMethod {
    /// With a name and a password.
    Password,
    /// With a token.
    Token,
    /// With a client certificate, or with nothing at all.
    Certificate,
}

impl LoginMethod {
    const ALL: [Self; 3] = [Self::Password, Self::Token, Self::Certificate];

    /// The method of a request.
    pub(crate) fn from_request(login: &Login) -> Self {
        match login {
            Login { token: Some(_), .. } => Self::Token,
            Login {
                password: Some(_), ..
            } => Self::Password,
            Login { .. } => Self::Certificate,
        }
    }

    /// Its name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Password => "password",
            Self::Token => "token",
            Self::Certificate => "certificate",
        }
    }
}

/// The counters of logins.
#[derive(Debug, Default)]
pub(crate) struct LoginCounters([LoginCounter; LoginMethod::ALL.len()]);

#[derive(Debug, Default)]
struct LoginCounter {
    ok: AtomicU64,
    errors: [AtomicU64; ErrorCode::ALL.len()],
}

impl LoginCounters {
    /// Counts a login, with its error code unless it succeeded.
    pub(crate) fn record(&self, how: LoginMethod, code: Option<ErrorCode>) {
        let counted = &self.0[how as usize];
        let outcome = code.map_or(Some(&counted.ok), |code| counted.errors.get(code as usize));
        if let Some(outcome) = outcome {
            outcome.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// All counts: method, error code unless successful, number.
    pub(crate) fn counts(&self) -> Vec<(LoginMethod, Option<ErrorCode>, u64)> {
        let mut counts = Vec::new();
        for (how, counted) in LoginMethod::ALL.into_iter().zip(&self.0) {
            counts.push((how, None, counted.ok.load(Ordering::Relaxed)));
            let errors = ErrorCode::ALL.into_iter().zip(&counted.errors);
            counts.extend(
                errors.map(|(code, number)| (how, Some(code), number.load(Ordering::Relaxed))),
            );
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_counted_by_how_it_was_meant_and_how_it_ended() {
        let logins = LoginCounters::default();
        let token = Login {
            token: Some(crate::protocol::Secret::new("x".to_owned())),
            ..Login::default()
        };
        logins.record(
            LoginMethod::from_request(&token),
            Some(ErrorCode::LoginFailed),
        );
        logins.record(LoginMethod::from_request(&Login::default()), None);
        let counted: Vec<_> = logins
            .counts()
            .into_iter()
            .filter(|one| one.2 > 0)
            .collect();
        assert_eq!(
            counted,
            [
                (LoginMethod::Token, Some(ErrorCode::LoginFailed), 1),
                (LoginMethod::Certificate, None, 1),
            ]
        );
    }
}
