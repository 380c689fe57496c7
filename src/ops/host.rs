//! To whom the page is shown: a browser that asked for this machine, and for this page.
//!
//! A page of a stranger can have its own name lead to 127.0.0.1 once it is open, and read what is
//! there (DNS rebinding). The request then still carries the stranger's name.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::header::{
    ACCEPT_LANGUAGE, CACHE_CONTROL, HOST, HeaderMap, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
    X_FRAME_OPTIONS,
};
use axum::http::uri::Authority;
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// The headers by which a browser describes the origin of a request.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// No matter what is answered, nobody keeps it, guesses at it, or shows it inside of something else.
const RESPONSE_HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Balancers pass on what comes when it comes.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Refuses a request that was made for another host, or from within another site.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let own = rustix::system::uname();
    let own = own.nodename().to_str().unwrap_or_default();
    let mut response = if !is_own_host(own, request.headers()) {
        let why = "this is not the host that you asked for: use an IP address, localhost or \
                   this machine's own name; a proxy has to send one of these as Host\n";
        (StatusCode::MISDIRECTED_REQUEST, why).into_response()
    } else if is_cross_site(request.headers()) {
        (StatusCode::FORBIDDEN, "no other site may look\n").into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in RESPONSE_HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// Refuses a browser that was led here under another host's name. Who collects may use any name.
pub(super) async fn guard_from_browsers(request: Request, next: Next) -> Response {
    if is_from_browser(request.headers()) {
        return guard(request, next).await;
    }
    next.run(request).await
}

/// Every browser says which languages it wants, and no page can keep it from that.
fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCEPT_LANGUAGE) || headers.contains_key(FETCH_MODE)
}

/// Whether the request is for an address, for `localhost`, or for the machine by its `own` name.
/// Nobody else can have these names lead here.
fn is_own_host(own: &str, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else {
        return false;
    };
    let host = host.to_str().unwrap_or_default();
    let Ok(authority) = host.parse::<Authority>() else {
        return false;
    };
    let host = authority.host();
    let address = host.trim_start_matches('[').trim_end_matches(']');
    let host = host.strip_suffix('.').unwrap_or(host);
    let short = own.split('.').next().unwrap_or_default();
    let is = |name: &str| !name.is_empty() && host.eq_ignore_ascii_case(name);
    address.parse::<IpAddr>().is_ok() || is("localhost") || is(own) || is(short)
}

/// Whether a page of another site asks, in the background. A link that leads here is no such thing.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let says = |name, value: &str| headers.get(name).is_some_and(|is| is == value);
    let from_elsewhere = says(FETCH_SITE, "cross-site") || says(FETCH_SITE, "same-site");
    from_elsewhere && !says(FETCH_MODE, "navigate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pairs = pairs.iter().map(|(name, value)| {
            let name = HeaderName::from_static(name);
            (name, HeaderValue::from_static(value))
        });
        pairs.collect()
    }

    #[test]
    fn a_name_that_a_stranger_could_have_lead_here_is_refused() {
        let own = "files.example.org";
        for host in [
            "127.0.0.1:9001",
            "[::1]:9001",
            "192.0.2.7",
            "localhost",
            "LOCALHOST:9001",
            "localhost.:9001",
            "files.example.org:9001",
            "files",
        ] {
            assert!(is_own_host(own, &headers(&[("host", host)])), "{host}");
        }
        for host in [
            "evil.example",
            "evil.example:9001",
            "127.0.0.1.evil.example",
            "localhost.evil.example",
            "example.org",
            "evil@",
            "",
        ] {
            assert!(!is_own_host(own, &headers(&[("host", host)])), "{host}");
        }
        assert!(!is_own_host(own, &HeaderMap::new()));
        assert!(!is_own_host("", &headers(&[("host", "")])));
        let mut twice = headers(&[("host", "localhost")]);
        twice.append(HOST, HeaderValue::from_static("evil.example"));
        assert!(!is_own_host(own, &twice));
    }

    #[test]
    fn a_browser_is_told_from_who_collects() {
        assert!(is_from_browser(&headers(&[("accept-language", "en")])));
        let prometheus = [
            ("host", "haul:9001"),
            ("user-agent", "Prometheus/3"),
            ("accept", "text/plain"),
        ];
        assert!(!is_from_browser(&headers(&prometheus)));
    }

    #[test]
    fn a_link_from_elsewhere_may_lead_here_and_a_page_from_elsewhere_may_not_ask() {
        let from = |site, mode| {
            is_cross_site(&headers(&[
                ("sec-fetch-site", site),
                ("sec-fetch-mode", mode),
            ]))
        };
        assert!(from("cross-site", "cors") && from("same-site", "no-cors"));
        assert!(!from("cross-site", "navigate") && !from("same-origin", "cors"));
        assert!(!is_cross_site(&HeaderMap::new()));
    }
}
