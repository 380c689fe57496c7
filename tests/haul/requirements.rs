//! Requirements of some tests on the machine. If one is missing, the test says so in its output.

use std::io::Write;
use std::process::Command;

/// Whether a program is there. Without it `test` is skipped loudly, and on CI it fails: a test that
/// did not run has not passed.
pub(crate) fn program(name: &str, version: &str, test: &str) -> bool {
    let said = Command::new(name).arg(version).output();
    if said.is_ok_and(|said| said.status.success()) {
        return true;
    }
    let skipped = format!("SKIPPED {test}: {name} is not installed");
    let on_ci = std::env::var_os("CI").is_some_and(|ci| ci == "true");
    assert!(!on_ci, "{skipped}");
    say(&skipped);
    false
}

/// The image under test, if whoever runs the tests has built one and has an engine: `.ci/docker`
/// has. Otherwise `test` is skipped loudly.
pub(crate) fn image(test: &str) -> Option<String> {
    let image = std::env::var("HAUL_IMAGE").ok();
    if image.is_none() {
        say(&format!(
            "SKIPPED {test}: HAUL_IMAGE names no image; .ci/docker builds one"
        ));
    }
    image
}

/// Whether the kernel grants namespaces of these kinds (arguments of `unshare`) and what `probe`
/// does in them. Without, `test` is skipped loudly; on CI too, for nothing there could change it.
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

/// Not by `eprintln!`, which the test runner catches and shows only of tests that fail.
fn say(skipped: &str) {
    writeln!(std::io::stderr(), "{skipped}").expect("standard error");
}
