//! The directory of the client's files.

use std::path::PathBuf;

use anyhow::Context;
use etcetera::{BaseStrategy, choose_base_strategy};

/// The directory of this program among the user's settings.
pub(crate) fn directory() -> anyhow::Result<PathBuf> {
    let strategy = choose_base_strategy().context("there is no home directory")?;
    Ok(strategy.config_dir().join("haul"))
}
