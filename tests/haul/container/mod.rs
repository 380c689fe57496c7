//! haul in its container, with a real Docker engine: what a person gets who runs the image.
//!
//! `.ci/docker` starts an engine, builds the image and runs these.

mod compose;
mod engine;
mod image;
mod running;
mod volumes;

use crate::requirements;
use engine::{Container, RunOptions, docker, docker_fails};

/// The image under test, or a reason to leave.
fn image(test: &str) -> Option<String> {
    requirements::image(&format!("container::{test}"))
}
