//! The tracing target of the audit.

/// The target of audit events: logins, and everything that changes something.
pub const AUDIT: &str = "haul::audit";
