//! A client like existing ones: a short Python program with `socket`, `struct` and `json`.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use haul::storage::SpaceLimits;

use crate::harness::{PASSWORD, TestServer};
use crate::requirements;

/// Runs the client in a directory, with these commands.
async fn run(server: &TestServer, directory: &Path, torn: bool, orders: &[&str]) -> Output {
    let client = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/classic_client.py");
    let mut command = Command::new("python3");
    command
        .arg(client)
        .args([
            server.address.ip().to_string(),
            server.address.port().to_string(),
        ])
        .args(torn.then_some("--torn"))
        .current_dir(directory)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .env("PYTHONUTF8", "1")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let orders = orders.join("\n");
    let run = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(orders.as_bytes())?;
        drop(input);
        child.wait_with_output()
    });
    run.await.expect("no panic").expect("python3 runs")
}

fn is_installed(test: &str) -> bool {
    requirements::program("python3", "--version", &format!("classic::program::{test}"))
}

#[tokio::test]
async fn an_existing_python_client_can_use_all_its_commands() {
    if !is_installed("an_existing_python_client_can_use_all_its_commands") {
        return;
    }
    let large: Vec<u8> = (0..5_000_011_u32)
        .map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3])
        .collect();
    let login = format!("login carol \"{PASSWORD}\"");
    for torn in [false, true] {
        let server = TestServer::start().await;
        let limits = SpaceLimits {
            bytes: Some(6_000_000),
            files: None,
        };
        server.add_user("carol", limits).await;
        let temp_dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| temp_dir.path().join(name);
        fs::write(at("large.bin"), &large).expect("written");
        fs::write(at("empty"), b"").expect("written");
        fs::write(at("年度 报告.txt"), "第一行\n").expect("written");
        fs::create_dir(at("back")).expect("made");
        let orders = [
            "pwd",
            // An upload before the login is refused, and its body discarded.
            "put large.bin",
            &login,
            "mkdir \"我的 文件\"",
            "put \"年度 报告.txt\" \"我的 文件\"",
            "put empty",
            "put large.bin",
            // The first is refused for a missing directory, the second by the quota.
            "put large.bin nowhere",
            "put large.bin \"我的 文件\"",
            "cd \"我的 文件\" && ls",
            "get \"年度 报告.txt\" back",
            "cd ..",
            "get empty back",
            "get large.bin back",
            "get nothing back",
            "frobnicate",
            "quit",
        ];
        let output = run(&server, temp_dir.path(), torn, &orders).await;
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}{errors}");
        let lines: Vec<_> = text.lines().collect();
        let expected = [
            "log in first: login USER PASSWORD",
            "not stored: log in first: login USER PASSWORD",
            "logged in as carol; you are in /",
            "created /我的 文件",
            "stored /我的 文件/年度 报告.txt, 10 bytes, MD5 ",
            "stored /empty, 0 bytes, MD5 d41d8cd98f00b204e9800998ecf8427e",
            "stored /large.bin, 5000011 bytes, MD5 ",
            "not stored: no such directory: /nowhere",
            "not stored: ",
            "/我的 文件",
            "            10  年度 报告.txt",
            "年度 报告.txt, 10 bytes",
            "MD5 right",
            "/",
            "empty, 0 bytes",
            "MD5 right",
            "large.bin, 5000011 bytes",
            "MD5 right",
            "no such file or directory: /nothing",
            "unknown command \"frobnicate\"; \"help\" lists them",
            "goodbye",
        ];
        assert_eq!(lines.len(), expected.len(), "{text}");
        for (line, expected) in lines.iter().zip(expected) {
            assert!(line.starts_with(expected), "{line:?}, not {expected:?}");
        }
        assert!(lines[8].contains("quota"), "{}", lines[8]);
        assert!(fs::read(at("back/large.bin")).expect("got") == large);
        assert_eq!(fs::read(at("back/empty")).expect("got"), b"");
        let back = fs::read_to_string(at("back/年度 报告.txt")).expect("got");
        assert_eq!(back, "第一行\n");
        for bar in ["up [####", "down [####", "] 100%"] {
            assert!(errors.contains(bar), "{errors}");
        }
        assert_eq!(server.staged(), 0, "nothing unfinished is left");
    }
}

#[test]
fn the_python_client_stays_short() {
    let source = include_str!("../../clients/classic_client.py");
    assert!(source.lines().count() < 130);
}
