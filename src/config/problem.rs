//! What is wrong with a configuration.

use std::fmt;
use std::path::PathBuf;

/// Everything that is wrong with a configuration: at least one problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(Vec<ConfigProblem>);

/// One thing that is wrong. Its text is one sentence for the person who wrote the configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// The file cannot be read.
    #[error("cannot read the configuration {}: {reason}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// The line or variable is not a valid setting.
    #[error("{origin}: {message}")]
    Setting {
        /// The position of the setting.
        origin: SettingOrigin,
        /// The description of the problem.
        message: String,
    },
    /// A file that the settings name cannot be used.
    #[error("{0}")]
    File(String),
}

impl ConfigProblem {
    /// The line in the file; at the end those of the environment, in their order.
    pub(super) fn line(&self) -> usize {
        match self {
            Self::Setting {
                origin: SettingOrigin::File(_, line),
                ..
            } => *line,
            Self::Read { .. } => 0,
            Self::Setting { .. } | Self::File(_) => usize::MAX,
        }
    }
}

/// The position of a setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingOrigin {
    /// A line of a file, counted from 1.
    File(PathBuf, usize),
    /// The environment variable with this name.
    Environment(String),
}

impl ConfigError {
    /// The error of these problems; `None` without any.
    #[must_use]
    pub fn new(problems: Vec<ConfigProblem>) -> Option<Self> {
        (!problems.is_empty()).then_some(Self(problems))
    }

    /// The problems: first those of the file, in the order of its lines.
    #[must_use]
    pub fn problems(&self) -> &[ConfigProblem] {
        &self.0
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, problem) in self.0.iter().enumerate() {
            if number > 0 {
                f.write_str("; ")?;
            }
            problem.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

impl fmt::Display for SettingOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path, line) => write!(f, "{}, line {line}", path.display()),
            Self::Environment(name) => write!(f, "environment variable {name}"),
        }
    }
}
