//! The status page: what operators see in a browser.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::json;

use crate::browser::Browser;
use crate::daemon::ServerProcess;
use crate::harness::{RawClient, data};

/// A hostile name, which would run a script if the page did not escape it.
const HOSTILE: &str = "/<img src=x onerror=document.title='ran'><b>&amp;.bin";

/// Scripts that examine a page. This one computes the smallest contrast of texts to their
/// background, as defined by WCAG.
const MIN_CONTRAST: &str = "
    const numbers = (color) => color.match(/[\\d.]+/g).map(Number);
    const light = (color) => {
        const [r, g, b] = numbers(color).slice(0, 3).map((one) => {
            one /= 255;
            return one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4;
        });
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let one = element; one; one = one.parentElement) {
            const color = getComputedStyle(one).backgroundColor;
            if ((numbers(color)[3] ?? 1) === 1) return color;
        }
        return 'rgb(255, 255, 255)';
    };
    let least = [99, ''];
    let seen = 0;
    for (const element of document.querySelectorAll('body *')) {
        const text = [...element.childNodes].find((one) => one.nodeType === 3 && one.data.trim());
        if (!text || !element.checkVisibility() || element.tagName === 'SCRIPT') continue;
        const style = getComputedStyle(element);
        const color = element.namespaceURI.endsWith('svg') ? style.fill : style.color;
        const pair = [light(color), light(behind(element))].sort((a, b) => b - a);
        const contrast = (pair[0] + 0.05) / (pair[1] + 0.05);
        seen += 1;
        if (contrast < least[0]) least = [contrast, `${element.tagName}.${element.className}: ${text.data}`];
    }
    return { contrast: least[0], of: least[1], seen, ground: light(getComputedStyle(document.body).backgroundColor) };";

/// The width of the page, and the elements that are wider than the screen.
const TOO_WIDE: &str = "
    const width = document.documentElement.clientWidth;
    const wide = [...document.querySelectorAll('body *')].filter((one) =>
        one.checkVisibility() && !one.closest('.unseen, thead') && one.getBoundingClientRect().right > width + 0.5);
    return { page: document.documentElement.scrollWidth, screen: width,
        wide: wide.map((one) => `${one.tagName}#${one.id}.${one.className}`) };";

/// A put of `size` bytes that waits for its data.
async fn put(client: &mut RawClient, path: &str, size: usize) {
    client
        .send(json!({"id": 7, "cmd": "put", "path": path, "size": size}))
        .await;
}

fn url(daemon: &ServerProcess) -> String {
    format!("http://{}/", daemon.ops)
}

#[tokio::test]
async fn the_status_page_shows_sessions_and_transfers_live() {
    let Some(browser) = Browser::start("the_status_page_shows_sessions_and_transfers_live") else {
        return;
    };
    let daemon = ServerProcess::start();
    let token = daemon.token();
    browser.open(&url(&daemon));
    browser.see("document.querySelector('#state').dataset.state === 'ready'");
    browser.see("document.querySelector('#sessions-empty').checkVisibility()");
    browser.run("window.isTheSame = true");
    let mut client = daemon.log_in(&token).await;
    browser.see("document.querySelector('#sessions tbody').innerText.includes('admin')");
    browser.see("document.querySelector('#sessions tbody').innerText.includes('127.0.0.1:')");
    browser.see("document.querySelector('#sessions .tag').textContent === 'plain'");
    put(&mut client, HOSTILE, 400_000).await;
    for quarter in 1..=3_u32 {
        client.send_bytes(&data(7, &vec![0; 100_000])).await;
        browser.see(&format!(
            "document.querySelector('#transfers progress')?.value === {}",
            f64::from(quarter) / 4.0
        ));
    }
    browser.see("document.querySelector('#transfers .amount').textContent === '75 % of 391 KiB'");
    browser.see("document.querySelector('#figure-transfers').textContent === '1'");
    let path = browser.run("return document.querySelector('#transfers .path').textContent");
    assert_eq!(path, HOSTILE);
    client.send_bytes(&data(7, &vec![0; 100_000])).await;
    client.send(json!({"id": 7, "cmd": "end"})).await;
    browser.see("document.querySelector('#transfers-empty').checkVisibility()");
    browser.see("document.querySelector('#log').innerText.includes(\"<img src=x\")");
    drop(client);
    browser.see("document.querySelector('#sessions-empty').checkVisibility()");
    assert_eq!(browser.run("return window.isTheSame"), true);
    assert_eq!(
        browser.run("return document.querySelectorAll('img, main bdi b').length"),
        0
    );
    let title = browser.run("return document.title");
    let machine = rustix::system::uname();
    let machine = machine.nodename().to_string_lossy();
    let (_, port) = daemon.address.rsplit_once(':').expect("a port");
    assert_eq!(title, format!("haul {machine}:{port}"));
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
    let requests = browser.requests();
    let asked = |path: &str| requests.contains(&format!("http://{}{path}", daemon.ops));
    assert!(asked("/") && asked("/live"), "{requests:?}");
    for request in &requests {
        let is_own = request.starts_with(&url(&daemon)) || request.starts_with("data:");
        // Before the first URL is opened, the browser shows its own page.
        let is_first = request.starts_with("chrome");
        assert!(is_own || is_first, "{request}");
    }
}

#[tokio::test]
async fn small_files_are_one_entry_of_the_log_which_shows_its_lines_when_opened() {
    let test = "small_files_are_one_entry_of_the_log_which_shows_its_lines_when_opened";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let daemon = ServerProcess::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    browser.open(&url(&daemon));
    browser.see("document.querySelectorAll('#log li').length > 0");
    for number in 0..10 {
        client.put(&format!("/{number}.txt"), b"content").await;
    }
    browser.see(
        "document.querySelector('#log summary')?.innerText.includes('put of 10 small files, 70 B')",
    );
    browser.run("document.querySelector('#log details').open = true");
    browser.see("document.querySelectorAll('#log details li').length === 10");
    browser.see("document.querySelector('#log details').innerText.includes('path=/7.txt')");
    let wrong = json!({"cmd": "login", "user": "admin", "password": "wrong"});
    let mut stranger = RawClient::connect(&*daemon.address).await;
    stranger.fails(wrong, "login_failed").await;
    browser.see("document.querySelector('#figure-failed-logins').textContent === '1'");
    client
        .fails(json!({"cmd": "rm", "path": "/missing"}), "not_found")
        .await;
    browser.see("document.querySelector('#figure-errors').textContent === '1'");
    browser.see("document.querySelector('#figure-disk').textContent.endsWith(' %')");
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
}

#[tokio::test]
async fn the_page_is_readable_on_a_small_screen_and_in_dark_mode() {
    let Some(browser) = Browser::start("the_page_is_readable_on_a_small_screen_and_in_dark_mode")
    else {
        return;
    };
    let daemon = ServerProcess::start();
    let mut client = daemon.log_in(&daemon.token()).await;
    put(&mut client, &format!("/{}", "x".repeat(250)), 400_000).await;
    client.send_bytes(&data(7, &vec![0; 100_000])).await;
    let mut grounds = Vec::new();
    for (width, scheme) in [
        (360, "light"),
        (360, "dark"),
        (1280, "light"),
        (1280, "dark"),
    ] {
        browser.resize(width);
        browser.prefer(scheme);
        browser.open(&url(&daemon));
        browser.see("document.querySelector('#transfers progress')?.value === 0.25");
        browser.see("document.querySelectorAll('#log li').length > 0");
        let found = browser.run(TOO_WIDE);
        assert_eq!(found["page"], found["screen"], "{width} {scheme}: {found}");
        assert_eq!(found["wide"], json!([]), "{width} {scheme}: {found}");
        browser.see("document.querySelector('.path').getBoundingClientRect().width > 150");
        let least = browser.run(MIN_CONTRAST);
        let contrast = least["contrast"].as_f64().expect("a number");
        assert!(contrast >= 4.5, "{width} {scheme}: {least}");
        assert!(least["seen"].as_u64() > Some(30), "{least}");
        grounds.push(least["ground"].as_f64().expect("a number"));
    }
    assert!(grounds[0] > 0.8 && grounds[1] < 0.1, "{grounds:?}");
}

#[test]
fn the_log_is_shown_and_filtered_and_no_script_but_its_own_runs() {
    let test = "the_log_is_shown_and_filtered_and_no_script_but_its_own_runs";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let daemon = ServerProcess::start();
    browser.open(&url(&daemon));
    browser.see("document.querySelector('#log').innerText.includes('listening')");
    let filter = |text: &str| {
        browser.run(&format!(
            "const filter = document.querySelector('#log-filter');
             filter.value = '{text}';
             filter.dispatchEvent(new Event('input'));"
        ));
    };
    let shown = "[...document.querySelectorAll('#log li')].filter((one) => one.checkVisibility())";
    filter("event=listening");
    browser.see(&format!("{shown}.length === 1"));
    filter("no such line");
    browser.see(&format!("{shown}.length === 0"));
    browser.see("document.querySelector('#log-empty').checkVisibility()");
    filter("");
    browser.see(&format!("{shown}.length > 1"));
    assert_eq!(browser.complaints(), Vec::<serde_json::Value>::new());
    browser.run(
        "const script = document.createElement('script');
         script.textContent = 'window.ran = true';
         document.body.append(script);",
    );
    assert_eq!(browser.run("return window.ran === undefined"), true);
    assert!(!browser.complaints().is_empty(), "the browser says so");
}

#[tokio::test]
async fn a_page_reports_that_its_server_is_lost_and_resumes_with_the_next_one() {
    let test = "a_page_reports_that_its_server_is_lost_and_resumes_with_the_next_one";
    let Some(browser) = Browser::start(test) else {
        return;
    };
    let temp_dir = tempfile::tempdir().expect("a temporary directory");
    let daemon = ServerProcess::start_on(temp_dir.path());
    let ops = daemon.ops.clone();
    browser.open(&url(&daemon));
    browser.see("document.querySelector('#state').dataset.state === 'ready'");
    // A running transfer delays the end of the server.
    let mut client = daemon.log_in(&daemon.token()).await;
    put(&mut client, "/waits", 400_000).await;
    browser.see("document.querySelector('#figure-transfers').textContent === '1'");
    daemon.signal(Signal::TERM);
    browser.see("document.querySelector('#state').dataset.state === 'draining'");
    drop(client);
    assert_eq!(daemon.stopped().code, Some(0));
    browser.see("document.querySelector('#state').dataset.state === 'lost'");
    browser.see("document.querySelector('#lost').checkVisibility()");
    let _next = ServerProcess::start_on_with(temp_dir.path(), &[("HAUL_OPS_LISTEN", &ops)]);
    browser.see("document.querySelector('#state').dataset.state === 'ready'");
    browser.see("!document.querySelector('#lost').checkVisibility()");
}

/// Sends a request; its response has not been read.
fn ask(daemon: &ServerProcess, path: &str, headers: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(&daemon.ops).expect("it listens");
    let patience = Some(Duration::from_mins(1));
    stream.set_read_timeout(patience).expect("set");
    let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
    stream.write_all(request.as_bytes()).expect("sent");
    BufReader::new(stream)
}

/// The next line that begins with `start`.
fn read_line(answer: &mut BufReader<TcpStream>, start: &str) -> String {
    let mut line = String::new();
    while answer.read_line(&mut line).expect("text") > 0 {
        if line.starts_with(start) {
            return line.trim_end().to_owned();
        }
        line.clear();
    }
    panic!("no {start}");
}

#[test]
fn a_page_of_another_origin_that_resolves_to_this_address_reads_nothing() {
    let daemon = ServerProcess::start();
    for path in ["/", "/live"] {
        let headers = "Host: evil.example\r\nConnection: close\r\n";
        let mut text = String::new();
        let mut answer = ask(&daemon, path, headers);
        answer.read_to_string(&mut text).expect("text");
        assert!(text.starts_with("HTTP/1.1 421 "), "{text}");
        assert!(
            text.ends_with("as Host\n") && !text.contains("version"),
            "{text}"
        );
        let headers = "Host: localhost\r\nSec-Fetch-Site: cross-site\r\nSec-Fetch-Mode: cors\r\n";
        let refused = read_line(&mut ask(&daemon, path, headers), "HTTP/");
        assert_eq!(refused, "HTTP/1.1 403 Forbidden");
    }
    let mut text = String::new();
    let mut answer = ask(&daemon, "/", "Host: [::1]:1\r\nConnection: close\r\n");
    answer.read_to_string(&mut text).expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head");
    for header in [
        "HTTP/1.1 200 OK",
        "content-security-policy: default-src 'none'; script-src 'sha256-",
        "cache-control: no-store",
        "x-content-type-options: nosniff",
        "referrer-policy: no-referrer",
    ] {
        assert!(head.contains(header), "{header} is missing in {head}");
    }
    assert!(!head.to_lowercase().contains("access-control"), "{head}");
    assert!(body.starts_with("<!doctype html>"), "{body}");
}

#[test]
fn the_number_of_viewers_is_limited_and_a_leaving_viewer_frees_a_slot() {
    let daemon = ServerProcess::start();
    let look = || ask(&daemon, "/live", "Host: localhost\r\n");
    let mut viewers: Vec<_> = (0..16)
        .map(|_| {
            let mut viewer = look();
            assert_eq!(read_line(&mut viewer, "event:"), "event: history");
            assert_eq!(read_line(&mut viewer, "event:"), "event: now");
            viewer
        })
        .collect();
    let mut refused = look();
    assert_eq!(
        read_line(&mut refused, "HTTP/"),
        "HTTP/1.1 503 Service Unavailable"
    );
    // All viewers still receive updates.
    for viewer in &mut viewers {
        let event = read_line(viewer, "data: {\"version\"");
        assert!(event.contains("\"state\":\"ready\""), "{event}");
    }
    viewers.pop();
    loop {
        let status = read_line(&mut look(), "HTTP/");
        if status == "HTTP/1.1 200 OK" {
            break;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
