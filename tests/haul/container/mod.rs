//! haul in its container, with a real Docker engine.
//!
//! `.ci/docker` starts an engine, builds the image and runs these tests.

mod compose;
mod engine;
mod image;
mod running;
mod volumes;

use crate::requirements;
use engine::{Container, RunOptions, docker, docker_fails};

/// The image under test; `None` if the test must be skipped.
fn image(test: &str) -> Option<String> {
    requirements::image(&format!("container::{test}"))
}
