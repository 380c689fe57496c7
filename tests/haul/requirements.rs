//! Requirements of some tests on the machine. A test that lacks one reports that it is skipped.

use std::io::Write;
use std::process::Command;

/// Whether a program is installed. Without it, `test` reports that it is skipped; on CI it fails,
/// because a test that did not run has not passed.
pub(crate) fn program(name: &str, version: &str, test: &str) -> bool {
    let version_output = Command::new(name).arg(version).output();
    if version_output.is_ok_and(|version_output| version_output.status.success()) {
        return true;
    }
    let skipped = format!("SKIPPED {test}: {name} is not installed");
    let on_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!on_ci, "{skipped}");
    say(&skipped);
    false
}

/// The image under test in `HAUL_IMAGE`, which `.ci/docker` sets. Without it, `test` reports that
/// it is skipped.
pub(crate) fn image(test: &str) -> Option<String> {
    let image = std::env::var("HAUL_IMAGE").ok();
    if image.is_none() {
        say(&format!(
            "SKIPPED {test}: HAUL_IMAGE names no image; .ci/docker builds one"
        ));
    }
    image
}

/// Whether the kernel allows namespaces of these kinds (arguments of `unshare`) and the command
/// `probe` in them. Otherwise `test` reports that it is skipped, on CI too, which cannot change the
/// kernel.
pub(crate) fn namespaces(kinds: &[&str], probe: &[&str], test: &str) -> bool {
    let probed = Command::new("unshare").args(kinds).args(probe).output();
    if probed.as_ref().is_ok_and(|probed| probed.status.success()) {
        return true;
    }
    say(&format!(
        "SKIPPED {test}: no namespace to be had here: {probed:?}"
    ));
    false
}

/// Not by `eprintln!`, which the test runner shows only for failed tests.
fn say(skipped: &str) {
    writeln!(std::io::stderr(), "{skipped}").expect("standard error");
}
