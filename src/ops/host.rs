//! Protects the status page against other web sites: only requests that name this machine are answered.
//!
//! The web site of an attacker can let its own host name resolve to 127.0.0.1 once it is open in a browser,
//! and read the responses (DNS rebinding). The `Host` header of such a request has the attacker's name.

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

/// The headers that describe the origin of a request of a browser.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// The headers of every response: no caching, no type sniffing, no framing.
const RESPONSE_HEADERS: [(HeaderName, &str); 6] = [
    (CACHE_CONTROL, "no-store"),
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
    // Proxies must not buffer the events.
    (HeaderName::from_static("x-accel-buffering"), "no"),
];

/// Refuses a request that was made for another host, or from within another site.
pub(super) async fn guard(request: Request, next: Next) -> Response {
    let own = rustix::system::uname();
    let own = own.nodename().to_str().unwrap_or_default();
    let mut response = if !is_own_host(own, request.headers()) {
        let reason = "the Host header does not name this machine: use an IP address, localhost or \
                      this machine's name; a proxy must send one of these as Host\n";
        (StatusCode::MISDIRECTED_REQUEST, reason).into_response()
    } else if is_cross_site(request.headers()) {
        (
            StatusCode::FORBIDDEN,
            "requests of other web sites are refused\n",
        )
            .into_response()
    } else {
        next.run(request).await
    };
    for (name, value) in RESPONSE_HEADERS {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
    response
}

/// As [`guard`], but only for browsers. A collector of metrics may use any name.
pub(super) async fn guard_from_browsers(request: Request, next: Next) -> Response {
    if is_from_browser(request.headers()) {
        return guard(request, next).await;
    }
    next.run(request).await
}

/// Browsers always send the header `Accept-Language`; a script cannot suppress it.
fn is_from_browser(headers: &HeaderMap) -> bool {
    headers.contains_key(ACCEPT_LANGUAGE) || headers.contains_key(FETCH_MODE)
}

/// Whether the `Host` header is an IP address, `localhost` or the machine's `own` name. A web site cannot
/// use these names.
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

/// Whether a script or element of another web site made the request. Links to this page are allowed.
fn is_cross_site(headers: &HeaderMap) -> bool {
    let has = |name, value: &str| headers.get(name).is_some_and(|is| is == value);
    let is_other_site = has(FETCH_SITE, "cross-site") || has(FETCH_SITE, "same-site");
    is_other_site && !has(FETCH_MODE, "navigate")
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
    fn a_host_name_of_another_site_is_refused() {
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
    fn browsers_and_collectors_are_distinguished() {
        assert!(is_from_browser(&headers(&[("accept-language", "en")])));
        let prometheus = [
            ("host", "haul:9001"),
            ("user-agent", "Prometheus/3"),
            ("accept", "text/plain"),
        ];
        assert!(!is_from_browser(&headers(&prometheus)));
    }

    #[test]
    fn other_sites_may_link_to_the_page_but_not_request_it() {
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
