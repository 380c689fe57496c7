//! Commands with several paths: one line for each path that fails, and the others are done.

use crate::cli::exit::{Reported, is_reported};
use crate::cli::output::Output;
use crate::cli::report::print_error;
use crate::client::ClientError;

/// The failures of a command so far.
pub(super) struct Failures {
    output: Output,
    command: &'static str,
    /// The error of a single path is that of the command.
    has_several: bool,
    failed: bool,
}

impl Failures {
    pub(super) fn new(output: Output, command: &'static str, paths: usize) -> Self {
        Self {
            output,
            command,
            has_several: paths > 1,
            failed: false,
        }
    }

    /// A pattern stands for several paths.
    pub(super) fn expect_several(&mut self) {
        self.has_several = true;
    }

    /// Reports the failure of one path.
    ///
    /// # Errors
    ///
    /// Returns `error` if the command has one path only, or if the other paths would fail in the
    /// same way.
    pub(super) fn add(&mut self, error: anyhow::Error) -> anyhow::Result<()> {
        let client = error.downcast_ref::<ClientError>();
        let ends_everything = client.is_some_and(ClientError::ends_everything);
        if !self.has_several || ends_everything || is_reported(&error) {
            return Err(error);
        }
        self.failed = true;
        print_error(self.output, self.command, &error);
        Ok(())
    }

    /// Ends the command, with an error if a path failed.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        if self.failed {
            return Err(Reported.into());
        }
        Ok(())
    }
}
