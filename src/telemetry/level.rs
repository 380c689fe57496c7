//! The log level, which operators can change at run time.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::{EnvFilter, Registry, reload};

use crate::config;
use crate::telemetry::error::TelemetryError;

/// A handle that changes the log level at run time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogLevelHandle {
    filter: reload::Handle<EnvFilter, Registry>,
    current: Arc<Mutex<ActiveFilter>>,
}

/// The filter that is in force.
#[derive(Debug)]
struct ActiveFilter {
    level: String,
    change: LevelChange,
}

/// Identifies one change of the level.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LevelChange(u64);

impl LogLevelHandle {
    pub(super) fn new(filter: reload::Handle<EnvFilter, Registry>, level: &str) -> Self {
        let current = ActiveFilter {
            level: level.into(),
            change: LevelChange(0),
        };
        Self {
            filter,
            current: Arc::new(Mutex::new(current)),
        }
    }

    /// Sets the level.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] and [`TelemetryError::NoLevel`] if `level` is invalid,
    /// [`TelemetryError::Ended`] once the log has ended.
    pub fn set(&self, level: &str) -> Result<LevelChange, TelemetryError> {
        self.replace(level, &mut self.current.lock())
    }

    /// Sets the level if it did not change since `change`; returns whether it did.
    #[must_use]
    pub fn set_unless_changed(&self, level: &str, change: LevelChange) -> bool {
        let mut current = self.current.lock();
        current.change == change && self.replace(level, &mut current).is_ok()
    }

    /// Checks that `level` is valid.
    ///
    /// # Errors
    /// [`TelemetryError::Level`] and [`TelemetryError::NoLevel`] if not.
    pub fn check(level: &str) -> Result<(), TelemetryError> {
        parse_filter(level).map(drop)
    }

    /// The current level, in the syntax of the setting.
    #[must_use]
    pub fn current(&self) -> String {
        self.current.lock().level.clone()
    }

    fn replace(
        &self,
        level: &str,
        current: &mut ActiveFilter,
    ) -> Result<LevelChange, TelemetryError> {
        let replaced = self.filter.reload(parse_filter(level)?);
        replaced.map_err(|_| TelemetryError::Ended)?;
        level.clone_into(&mut current.level);
        current.change.0 += 1;
        Ok(current.change)
    }
}

fn parse_filter(level: &str) -> Result<EnvFilter, TelemetryError> {
    if !config::is_log_level(level) {
        return Err(TelemetryError::NoLevel(level.into()));
    }
    Ok(EnvFilter::try_new(level)?)
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};

    use super::*;
    use crate::telemetry::line::LineLayer;

    #[test]
    fn the_level_can_change_at_run_time() {
        let (filter, handle) = reload::Layer::new(EnvFilter::new("warn"));
        let level = LogLevelHandle::new(handle, "warn");
        let lines = LineLayer::default().with_filter(filter);
        tracing::subscriber::with_default(Registry::default().with(lines), || {
            let info = || tracing::enabled!(tracing::Level::INFO);
            assert!(!info());
            let change = level.set("info").expect("a level");
            assert!(info());
            assert_eq!(level.current(), "info");
            assert!(level.set("haul=loud").is_err());
            assert!(info(), "an invalid level changes nothing");
            level.set("debug").expect("a level");
            assert!(!level.set_unless_changed("warn", change));
            assert_eq!(level.current(), "debug", "it was changed in between");
        });
        assert!(matches!(level.set("info"), Err(TelemetryError::Ended)));
    }
}
