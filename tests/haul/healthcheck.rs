//! `haul healthcheck`, as a container engine or a service manager runs it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;

use crate::daemon::{ServerProcess, haul};

/// The exit code, and the line of output.
fn checked(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = haul()
        .arg("healthcheck")
        .env_remove("HAUL_OPS_LISTEN")
        .envs(settings.iter().copied())
        .output()
        .expect("it runs");
    let stderr = String::from_utf8(output.stderr).expect("text");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    (output.status.code(), stderr)
}

#[test]
fn a_server_that_answers_is_healthy_on_each_of_its_addresses() {
    let daemon = ServerProcess::start();
    let for_operators = [("HAUL_OPS_LISTEN", &*daemon.ops)];
    let as_client = [
        ("HAUL_OPS_LISTEN", ""),
        ("HAUL_SERVER_LISTEN", &*daemon.address),
    ];
    for settings in [&for_operators[..], &as_client] {
        let (code, stderr) = checked(settings);
        assert_eq!(code, Some(0), "{stderr}");
        assert!(stderr.ends_with(" is healthy\n"), "{stderr}");
    }
    let temp_dir = tempfile::tempdir().expect("a directory");
    let file = temp_dir.path().join("haul.toml");
    let listen = format!("[ops]\nlisten = \"{}\"\n", daemon.ops);
    std::fs::write(&file, listen).expect("written");
    let file = file.to_str().expect("text");
    let (code, stderr) = checked(&[("HAUL_CONFIG", file)]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn an_absent_silent_or_failing_server_is_not_healthy() {
    let nobody = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.local_addr().expect("an address").to_string()
    };
    let ill = answering(|mut stream| {
        let _ = stream.read(&mut [0; 1024]);
        let _ = stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    });
    let closing = answering(drop);
    let silent = answering(|mut stream| {
        // Wait until the client has closed the connection.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    for (address, says) in [
        (&nobody, "onnection refused"),
        (&ill, "it responded with 503"),
        (&closing, " is not healthy: "),
        (&silent, "no answer within 3 s"),
    ] {
        for settings in [
            &[("HAUL_OPS_LISTEN", &**address)][..],
            &[("HAUL_OPS_LISTEN", ""), ("HAUL_SERVER_LISTEN", address)],
        ] {
            let (code, stderr) = checked(settings);
            assert_eq!(code, Some(1), "{stderr}");
            assert!(stderr.starts_with("haul: healthcheck: "), "{stderr}");
            let as_operator = settings.len() == 1;
            assert!(!as_operator || stderr.contains(says), "{stderr}");
        }
    }
}

#[test]
fn an_invalid_configuration_is_not_healthy() {
    let (code, stderr) = checked(&[("HAUL_CONFIG", "/there/is/none.toml")]);
    assert_eq!(code, Some(1), "{stderr}");
    assert!(stderr.contains("/there/is/none.toml"), "{stderr}");
}

/// A server that handles every connection by `answer`; returns its address.
fn answering(answer: fn(TcpStream)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    thread::spawn(move || listener.incoming().flatten().for_each(answer));
    address
}
