//! A headless Chromium, driven by `WebDriver`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::requirements;

/// The longest time that a test waits for a page.
const PATIENCE: Duration = Duration::from_mins(1);

/// The headers that restrict a browser to the page's own resources.
const SWITCHES: [&str; 12] = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-default-apps",
    "--disable-extensions",
    "--no-proxy-server",
];

/// Browsers run one at a time, because each needs hundreds of megabytes and all cores.
static TURN: Mutex<()> = Mutex::new(());

/// A browser with one page. It ends when it is dropped.
pub(crate) struct Browser {
    driver: Child,
    /// Kept open, so that the driver can write to it.
    _said: BufReader<ChildStdout>,
    port: u16,
    session: String,
    _profile: TempDir,
    _turn: MutexGuard<'static, ()>,
}

impl Browser {
    /// `None` without Chromium; then reports that `test` is skipped.
    pub(crate) fn start(test: &str) -> Option<Self> {
        let test = format!("status_page::{test}");
        if !requirements::program("chromium", "--version", &test)
            || !requirements::program("chromedriver", "--version", &test)
        {
            return None;
        }
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let mut driver = Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("the driver starts");
        let mut stdout = BufReader::new(driver.stdout.take().expect("piped"));
        let temp_dir = tempfile::tempdir().expect("a temporary directory");
        let profile = format!("--user-data-dir={}", temp_dir.path().display());
        let mut browser = Self {
            port: port_of(&mut stdout),
            driver,
            _said: stdout,
            session: String::new(),
            _profile: temp_dir,
            _turn: turn,
        };
        let switches: Vec<_> = SWITCHES.into_iter().chain([&*profile]).collect();
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "goog:chromeOptions": {"args": switches},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let session = browser.call("POST", "/session", &wanted);
        let session = session["sessionId"].as_str().expect("a session");
        session.clone_into(&mut browser.session);
        Some(browser)
    }

    /// Opens a page.
    pub(crate) fn open(&self, url: &str) {
        self.post("/url", &json!({"url": url}));
    }

    /// The value that a function with this body returns in the page.
    pub(crate) fn run(&self, script: &str) -> Value {
        self.post("/execute/sync", &json!({"script": script, "args": []}))
    }

    /// Waits until an expression is true in the page.
    pub(crate) fn see(&self, expression: &str) {
        let start = Instant::now();
        while self.run(&format!("return Boolean({expression})")) != json!(true) {
            if start.elapsed() > PATIENCE {
                let page = self.run("return document.body.innerText");
                panic!("waited in vain for: {expression}\nthe page shows: {page}");
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Sets the width of the screen, in pixels.
    pub(crate) fn resize(&self, width: u32) {
        let size =
            json!({"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": width < 600});
        self.tool("Emulation.setDeviceMetricsOverride", &size);
    }

    /// Sets the preferred colour scheme: `light` or `dark`.
    pub(crate) fn prefer(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        self.tool("Emulation.setEmulatedMedia", &json!({"features": features}));
    }

    /// The errors on the console since the last call.
    pub(crate) fn complaints(&self) -> Vec<Value> {
        let log = self.post("/se/log", &json!({"type": "browser"}));
        log.as_array().expect("a list").clone()
    }

    /// The addresses of all requests of its page.
    pub(crate) fn requests(&self) -> Vec<String> {
        let log = self.post("/se/log", &json!({"type": "performance"}));
        let lines = log.as_array().expect("a list").iter();
        let events = lines.map(|line| -> Value {
            let event = line["message"].as_str().expect("a text");
            serde_json::from_str(event).expect("JSON")
        });
        let events = events.filter(|one| one["message"]["method"] == "Network.requestWillBeSent");
        let urls = events.map(|one| one["message"]["params"]["request"]["url"].clone());
        urls.map(|url| url.as_str().expect("a text").to_owned())
            .collect()
    }

    /// A command of the `DevTools` protocol.
    fn tool(&self, command: &str, parameters: &Value) {
        let command = json!({"cmd": command, "params": parameters});
        self.post("/goog/cdp/execute", &command);
    }

    fn post(&self, path: &str, body: &Value) -> Value {
        self.call("POST", &format!("/session/{}{path}", self.session), body)
    }

    fn call(&self, method: &str, path: &str, body: &Value) -> Value {
        let (status, answer) = self.ask(method, path, body).expect("the driver answers");
        assert_eq!(status, "200", "{method} {path}: {answer}");
        answer["value"].clone()
    }

    /// The status and the body of the response.
    fn ask(&self, method: &str, path: &str, body: &Value) -> std::io::Result<(String, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let body = body.to_string();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost:{}\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())?;
        let mut answer = BufReader::new(stream);
        let (mut status, mut length) = (String::new(), 0);
        answer.read_line(&mut status)?;
        loop {
            let mut line = String::new();
            answer.read_line(&mut line)?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            if name.eq_ignore_ascii_case("content-length") {
                length = value.trim().parse().expect("a number");
            }
        }
        let mut content = vec![0; length];
        answer.read_exact(&mut content)?;
        let status = status.split(' ').nth(1).unwrap_or_default();
        let content = serde_json::from_slice(&content)?;
        Ok((status.to_owned(), content))
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Ending the driver alone would not end the browser.
        if !self.session.is_empty() {
            let _ = self.ask("DELETE", &format!("/session/{}", self.session), &json!({}));
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
    }
}

/// The port that the driver reports.
fn port_of(stdout: &mut impl BufRead) -> u16 {
    let mut line = String::new();
    while stdout.read_line(&mut line).expect("text") > 0 {
        if let Some((_, port)) = line.split_once("successfully on port ") {
            let port = port.trim().trim_end_matches('.');
            return port.parse().expect("a number");
        }
        line.clear();
    }
    panic!("the driver ended before it listened");
}
