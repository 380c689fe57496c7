//! nginx with curl: sendfile for downloads, DAV's PUT for uploads, TLS 1.3 with a certificate that
//! curl is told to trust.
//!
//! An upload is written beside its place, on the same file system, and renamed; in larger pieces
//! than by default, which costs the server up to a fifth less. Nothing is compared and nothing is
//! synced; nobody logs in.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::directories::BenchDirectories;
use crate::peer::BenchPeer;
use crate::process::{free_port, program};
use crate::rows::{BenchRow, Task};
use crate::{PeersResult, curl};

struct Nginx {
    room: PathBuf,
    plain: u16,
    tls: u16,
}

pub(crate) fn prepare(place: &BenchDirectories) -> PeersResult<Box<dyn BenchPeer>> {
    let room = place.room("nginx")?;
    let names = ["127.0.0.1", "127.0.0.2"].map(str::to_owned);
    let made = rcgen::generate_simple_self_signed(names)?;
    fs::write(room.join("certificate.pem"), made.cert.pem())?;
    fs::write(room.join("key.pem"), made.signing_key.serialize_pem())?;
    let nginx = Nginx {
        room,
        plain: free_port()?,
        tls: free_port()?,
    };
    fs::write(nginx.room.join("nginx.conf"), nginx.configuration(place))?;
    Ok(Box::new(nginx))
}

impl Nginx {
    fn configuration(&self, place: &BenchDirectories) -> String {
        // Started by root it would make its workers nobody's, who may not read these files.
        let user = if rustix::process::geteuid().is_root() {
            "user root;"
        } else {
            ""
        };
        format!(
            r#"
{user}
daemon off;
worker_processes auto;
pid "{room}/pid";
error_log "{room}/error.log";
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    client_max_body_size 0;
    client_body_buffer_size 128k;
    client_body_temp_path "{room}/body";
    proxy_temp_path "{room}/proxy";
    fastcgi_temp_path "{room}/fastcgi";
    uwsgi_temp_path "{room}/uwsgi";
    scgi_temp_path "{room}/scgi";
    server {{
        listen 127.0.0.1:{plain};
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate "{room}/certificate.pem";
        ssl_certificate_key "{room}/key.pem";
        ssl_protocols TLSv1.3;
        root "{root}";
        location /incoming/ {{
            dav_methods PUT;
            create_full_put_path on;
        }}
    }}
}}
"#,
            room = self.room.display(),
            root = place.root().display(),
            plain = self.plain,
            tls = self.tls,
        )
    }
}

impl BenchPeer for Nginx {
    fn name(&self) -> &'static str {
        "nginx"
    }

    fn verifies(&self) -> &'static str {
        "nobody"
    }

    fn server(&self) -> Command {
        let mut command = Command::new(self.program());
        command
            .arg("-p")
            .arg(&self.room)
            .arg("-e")
            .arg(self.room.join("error.log"))
            .arg("-c")
            .arg(self.room.join("nginx.conf"));
        command
    }

    fn program(&self) -> PathBuf {
        program("nginx").unwrap_or_default()
    }

    fn ports(&self) -> Vec<u16> {
        vec![self.plain, self.tls]
    }

    fn hello(&self) -> &'static [u8] {
        b"HEAD / HTTP/1.0\r\n\r\n"
    }

    fn takes_part(&self, _row: &BenchRow) -> bool {
        true
    }

    fn client(&self, task: &Task) -> PeersResult<Command> {
        let below = if task.down() { "files" } else { "incoming" };
        let (scheme, port) = if task.row.tls {
            ("https", self.tls)
        } else {
            ("http", self.plain)
        };
        let mut command =
            curl::command(task, &format!("{scheme}://{}:{port}/{below}/", task.host))?;
        command
            .arg("--cacert")
            .arg(self.room.join("certificate.pem"));
        if !task.down() {
            // By itself curl first asks whether the server will have it, which is a round trip.
            command.args(["--header", "Expect:"]);
        }
        Ok(command)
    }
}
