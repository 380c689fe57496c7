//! The operators' address: HTTP pages of `haul serve`.

use std::io::{Read, Write};
use std::net::TcpStream;

use crate::daemon::ServerProcess;

/// The status, the headers and the body of the response for `path`.
pub(crate) fn ask(daemon: &ServerProcess, path: &str) -> (u16, String, String) {
    let mut stream = TcpStream::connect(&daemon.ops).expect("it listens");
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
    let (status, headers) = head.split_once("\r\n").expect("a status");
    let status = status.split(' ').nth(1).expect("a number");
    (
        status.parse().expect("a number"),
        headers.to_owned(),
        body.to_owned(),
    )
}

#[test]
fn a_running_server_is_healthy() {
    let daemon = ServerProcess::start();
    let (status, _, body) = ask(&daemon, "/healthz");
    assert_eq!((status, &*body), (200, "ok\n"));
    assert_eq!(ask(&daemon, "/nothing").0, 404);
}
