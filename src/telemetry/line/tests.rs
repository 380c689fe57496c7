use std::sync::{Arc, Mutex};

use tracing_subscriber::layer::SubscriberExt as _;

use super::*;

struct LineBuffer(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for LineBuffer {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("unharmed").write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// The lines that `work` logs in `format`, on 2 January 2026.
fn logged(format: LineFormat, work: impl FnOnce()) -> String {
    let written = Arc::new(Mutex::new(Vec::new()));
    let mut lines = LineLayer {
        clock: || "2026-01-02T03:04:05.678901Z".parse().expect("a time"),
        ..LineLayer::default()
    };
    let writer = Arc::clone(&written);
    lines.add_output(format, move || LineBuffer(Arc::clone(&writer)));
    let subscriber = tracing_subscriber::registry().with(lines);
    tracing::subscriber::with_default(subscriber, work);
    let bytes = written.lock().expect("unharmed").clone();
    String::from_utf8(bytes).expect("UTF-8")
}

const TEXT: LineFormat = LineFormat::Text { colour: false };

fn a_session() {
    let session = tracing::error_span!(
        "session",
        session = "5f3a",
        peer = %"192.0.2.7:4711",
        user = tracing::field::Empty
    );
    let _entered = session.enter();
    tracing::info!(name: "connected", "connected");
    session.record("user", "alice");
    let path = "/a b.bin";
    tracing::warn!(
        name: "put_failed",
        path,
        bytes = 3_000_000_u64,
        took = 0.25,
        resumed = true,
        "put failed"
    );
}

#[test]
fn a_json_line_has_the_fields_of_event_and_session_at_its_top_level() {
    assert_eq!(
        logged(LineFormat::Json, a_session),
        concat!(
            r#"{"time":"2026-01-02T03:04:05.678Z","level":"info","event":"connected","message":"connected","#,
            r#""session":"5f3a","peer":"192.0.2.7:4711"}"#,
            "\n",
            r#"{"time":"2026-01-02T03:04:05.678Z","level":"warn","event":"put_failed","message":"put failed","#,
            r#""path":"/a b.bin","bytes":3000000,"took":0.25,"resumed":true,"#,
            r#""session":"5f3a","peer":"192.0.2.7:4711","user":"alice"}"#,
            "\n",
        )
    );
}

#[test]
fn a_text_line_has_the_same_fields() {
    assert_eq!(
        logged(TEXT, a_session),
        concat!(
            "2026-01-02T03:04:05.678Z  INFO connected session=5f3a peer=192.0.2.7:4711\n",
            "2026-01-02T03:04:05.678Z  WARN put failed path=\"/a b.bin\" bytes=3000000 ",
            "took=0.25 resumed=true session=5f3a peer=192.0.2.7:4711 user=alice\n",
        )
    );
    assert_eq!(
        logged(LineFormat::Text { colour: true }, || tracing::error!("no")),
        "2026-01-02T03:04:05.678Z \x1b[31mERROR\x1b[0m no\n"
    );
}

#[test]
fn no_value_breaks_the_line_or_controls_a_terminal() {
    let evil = || {
        let name = "x\r\n\x1b[2J\u{9b}1m\u{202e}\"\\";
        tracing::info!(name: "evil", name, shown = %name, debugged = ?name, "got {name}");
    };
    let escaped = r#"x\r\n\u001b[2J\u009b1m\u202e\"\\"#;
    // Rust's own escapes, escaped once more.
    let debugged = r#"\"x\\r\\n\\u{1b}[2J\\u{9b}1m\\u{202e}\\\"\\\\\""#;
    assert_eq!(
        logged(LineFormat::Json, evil),
        format!(
            "{{\"time\":\"2026-01-02T03:04:05.678Z\",\"level\":\"info\",\
             \"event\":\"evil\",\"message\":\"got {escaped}\",\"name\":\"{escaped}\",\"shown\":\"{escaped}\",\
             \"debugged\":\"{debugged}\"}}\n"
        )
    );
    assert_eq!(
        logged(TEXT, evil),
        format!(
            "2026-01-02T03:04:05.678Z  INFO got x\\r\\n\\u001b[2J\\u009b1m\\u202e\"\\ \
             name=\"{escaped}\" shown=\"{escaped}\" debugged=\"{debugged}\"\n"
        )
    );
}

#[test]
fn every_json_line_is_valid_json_with_the_logged_values() {
    let text = "tab\t nul\0 del\u{7f} next\u{85} line\u{2028} emoji 🦀";
    let line = logged(LineFormat::Json, || tracing::info!(text, "x"));
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&line).expect("JSON");
    assert_eq!(object["text"], text);
    assert_eq!(line.lines().count(), 1);
}

#[test]
fn the_innermost_field_counts_and_no_field_hides_time_or_level() {
    let work = || {
        let outer = tracing::error_span!("outer", user = "alice", session = 1);
        let _outer = outer.enter();
        let inner = tracing::error_span!("inner", user = "bob");
        let _inner = inner.enter();
        tracing::info!(name: "x", time = 7, level = 8, event = 9, "x");
        tracing::info!(user = "carol");
    };
    assert_eq!(
        logged(LineFormat::Json, work),
        concat!(
            r#"{"time":"2026-01-02T03:04:05.678Z","level":"info","event":"x","message":"x","#,
            r#""time_":7,"level_":8,"event_":9,"user":"bob","session":1}"#,
            "\n",
            r#"{"time":"2026-01-02T03:04:05.678Z","level":"info","event":"haul::telemetry::line::tests","message":"","#,
            r#""user":"carol","session":1}"#,
            "\n",
        )
    );
}
