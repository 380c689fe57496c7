//! Secrets: passwords and tokens.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A password or token. It is sent over the wire, and no log shows it.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps the text.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself, for the code that checks or sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_travels_and_never_shows() {
        let secret = Secret::new("hunter2".into());
        let json = serde_json::to_string(&secret).expect("a secret is JSON");
        assert_eq!((&*json, &*format!("{secret:?}")), ("\"hunter2\"", "***"));
    }
}
