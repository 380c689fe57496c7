//! SIGHUP: the configuration is read again while sessions continue.

use rustix::process::Signal;
use serde_json::json;

use crate::daemon::ServerProcess;
use crate::harness::RawClient;

const SOME: &str = "configuration read again; some settings need a restart";
const WRONG: &str = "the configuration is invalid; the previous one stays in force";

/// A daemon with a configuration file of this text, and that file.
fn daemon(text: &str) -> (ServerProcess, tempfile::NamedTempFile) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, text).expect("written");
    let path = file.path().to_str().expect("UTF-8").to_owned();
    (ServerProcess::start_with(&[("HAUL_CONFIG", &path)]), file)
}

#[tokio::test]
async fn a_reload_applies_live_settings_and_names_those_that_need_a_restart() {
    let (daemon, file) = daemon("");
    let mut session = daemon.log_in(&daemon.token()).await;
    let text = "[limits]\ndisk_threads = 3\nbandwidth_per_user = \"1MiB\"\n\
                [log]\nlevel = \"debug\"\n[server]\nlisten = \"127.0.0.1:1\"\n";
    std::fs::write(&file, text).expect("written");
    daemon.signal(Signal::HUP);
    let line = daemon.wait_for_log_line(SOME);
    assert_eq!(line["changed"], "limits.bandwidth_per_user log.level");
    // The flag --listen still overrides the file.
    assert_eq!(line["needs_restart"], "limits.disk_threads");
    drop(RawClient::connect(&daemon.address).await);
    daemon.wait_for_log_line("closed by the peer before it sent anything");
    session.ok(json!({"cmd": "ping"})).await;
    assert_eq!(daemon.terminate().code, Some(0));
}

#[tokio::test]
async fn an_invalid_configuration_changes_nothing_and_is_reported_in_one_line() {
    let (daemon, file) = daemon("[limits]\ntransfers = 2\n");
    std::fs::write(&file, "[limits]\ntransfers = 3\nsesions = 1\n").expect("written");
    daemon.signal(Signal::HUP);
    let line = daemon.wait_for_log_line(WRONG);
    let error = line["error"].as_str().expect("a reason");
    assert!(
        error.contains("line 3: there is no setting limits.sesions"),
        "{error}"
    );
    assert_eq!(line["level"], "error");
    std::fs::write(&file, "[limits]\ntransfers = 2\n").expect("written");
    daemon.signal(Signal::HUP);
    daemon.wait_for_log_line("configuration read again; nothing changed");
    std::fs::write(&file, "[limits]\ntransfers = 3\n").expect("written");
    daemon.signal(Signal::HUP);
    let line = daemon.wait_for_log_line("configuration read again");
    assert_eq!(line["changed"], "limits.transfers");
    daemon.log_in(&daemon.token()).await;
}

#[test]
fn without_a_file_nothing_changes() {
    let daemon = ServerProcess::start_with(&[("HAUL_LIMITS_TRANSFERS", "2")]);
    daemon.signal(Signal::HUP);
    daemon.wait_for_log_line("configuration read again; nothing changed");
    assert_eq!(daemon.terminate().code, Some(0));
}
