//! Many files that fail for one reason are one line and a number.

use std::collections::BTreeMap;

use crate::cli::output::{Output, count};
use crate::cli::progress::Bar;
use crate::client::ClientError;
use crate::protocol::ErrorCode;

/// Reasons of failures whose repetitions are counted rather than printed.
const MAX_REASONS: usize = 1000;

/// Failures that repeat an earlier one: many files of one directory fail for one reason.
#[derive(Default)]
pub(super) struct RepeatedFailures {
    /// The number of repetitions, by the server's code and by the directory or the message.
    counts: BTreeMap<(&'static str, String), u64>,
}

impl RepeatedFailures {
    /// Whether the failure repeats an earlier one, and is only counted.
    pub(super) fn repeats(&mut self, path: &str, error: &ClientError) -> bool {
        let key = match error {
            ClientError::Server(refusal) if refusal.code == ErrorCode::Denied => {
                let directory = path.trim_end_matches('/').rsplit_once('/');
                (
                    refusal.code.as_str(),
                    directory.map_or("", |(directory, _)| directory).to_owned(),
                )
            }
            ClientError::Server(refusal) if refusal.code == ErrorCode::NotADirectory => {
                (refusal.code.as_str(), refusal.message.clone())
            }
            _ => return false,
        };
        if let Some(count) = self.counts.get_mut(&key) {
            *count += 1;
            return true;
        }
        if self.counts.len() < MAX_REASONS {
            self.counts.insert(key, 0);
        }
        false
    }

    /// Prints the number of the failures that were only counted.
    pub(super) fn report(&self, output: Output, what: &str, bar: &Bar) {
        let repeated = self.counts.values().sum::<u64>();
        if repeated > 0 && !output.is_json() {
            let files = count(repeated, "more file");
            bar.print(&format!("haul: {what}: {files} failed for the same reason"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::WireError;

    #[test]
    fn only_the_first_file_of_a_refused_directory_is_reported() {
        let mut repeated = RepeatedFailures::default();
        let refused = |code| ClientError::Server(WireError::new(code, "no"));
        for (path, code, repeats) in [
            ("d/a", ErrorCode::Denied, false),
            ("d/b", ErrorCode::Denied, true),
            ("e/b", ErrorCode::Denied, false),
            ("d/c", ErrorCode::NotADirectory, false),
            ("e/c", ErrorCode::NotADirectory, true),
            ("d/d", ErrorCode::Exists, false),
            ("d/e", ErrorCode::Exists, false),
        ] {
            assert_eq!(repeated.repeats(path, &refused(code)), repeats, "{path}");
        }
    }
}
