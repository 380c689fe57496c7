//! The terminal of this process.

use std::io::{IsTerminal, stderr, stdin};

/// Whether there is a person who can be asked.
pub(crate) fn is_terminal() -> bool {
    stdin().is_terminal() && stderr().is_terminal()
}
