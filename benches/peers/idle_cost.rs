//! The cost of an idle server: its start, its memory, the size of its program.

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::json;
use tokio::time::sleep;

use crate::PeersResult;
use crate::directories::BenchDirectories;
use crate::options::BenchOptions;
use crate::peer::PeerKind;
use crate::process::{BenchProcess, memory};

const PATIENCE: Duration = Duration::from_secs(20);
/// After its start a server is left alone for so long before its memory is looked at.
const REST: Duration = Duration::from_secs(1);

struct Rest {
    peer: &'static str,
    /// From its start to its first answer to a client, in seconds: the median.
    start: f64,
    /// KiB, of all its processes.
    resident: u64,
    /// KiB, with what processes share divided among them.
    proportional: u64,
    /// Bytes.
    program: u64,
}

/// Measures and writes it for all.
pub(crate) async fn measure(
    kinds: &[&PeerKind],
    place: &BenchDirectories,
    options: &BenchOptions,
) -> PeersResult<()> {
    if !options.json {
        println!("\nAt rest [rest]");
        println!("Start: from the start of a server that has run before to its first answer.");
        println!(
            "    {:<8} {:>9} {:>13} {:>16} {:>12}",
            "", "start ms", "resident MiB", "proportional MiB", "program MiB"
        );
    }
    for kind in kinds {
        match one(kind, place, options).await {
            Ok(rest) => rest.print(options),
            Err(error) => eprintln!("{}: {error}", kind.name),
        }
    }
    Ok(())
}

async fn one(
    kind: &PeerKind,
    place: &BenchDirectories,
    options: &BenchOptions,
) -> PeersResult<Rest> {
    let peer = kind.prepare(place)?;
    let log = place.room(kind.name)?.join("rest.log");
    let mut starts = Vec::new();
    let mut used = (0, 0);
    for run in 0..options.runs {
        let begun = Instant::now();
        let mut process = BenchProcess::start(peer.server(), &log)?;
        while !answers(peer.ports()[0], peer.hello()) {
            if begun.elapsed() > PATIENCE || !process.runs() {
                return Err(format!("it does not start: {}", process.stderr_tail()).into());
            }
            std::thread::sleep(Duration::from_micros(200));
        }
        starts.push(begun.elapsed().as_secs_f64());
        if run + 1 == options.runs {
            sleep(REST).await;
            used = memory(process.id());
        }
    }
    starts.sort_by(f64::total_cmp);
    Ok(Rest {
        peer: kind.name,
        start: starts[starts.len() / 2],
        resident: used.0,
        proportional: used.1,
        program: fs::metadata(peer.program())?.len(),
    })
}

/// Whether a server takes a connection and says something on it.
fn answers(port: u16, hello: &[u8]) -> bool {
    let Ok(mut stream) = TcpStream::connect((Ipv4Addr::LOCALHOST, port)) else {
        return false;
    };
    let mut byte = [0];
    stream.set_read_timeout(Some(PATIENCE)).is_ok()
        && stream.write_all(hello).is_ok()
        && stream.read_exact(&mut byte).is_ok()
}

impl Rest {
    fn print(&self, options: &BenchOptions) {
        if options.json {
            let line = json!({
                "row": "rest",
                "peer": self.peer,
                "start": self.start,
                "resident": self.resident * 1024,
                "proportional": self.proportional * 1024,
                "program": self.program,
            });
            println!("{line}");
            return;
        }
        #[expect(clippy::cast_precision_loss, reason = "one digit is shown")]
        let mebibytes = |bytes: u64| bytes as f64 / f64::from(1 << 20);
        println!(
            "    {:<8} {:>9.1} {:>13.1} {:>16.1} {:>12.1}",
            self.peer,
            self.start * 1000.0,
            mebibytes(self.resident * 1024),
            mebibytes(self.proportional * 1024),
            mebibytes(self.program),
        );
    }
}
