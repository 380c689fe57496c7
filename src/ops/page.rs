//! The status page: one document with its scripts and its style sheet.

use std::sync::LazyLock;

use axum::http::header::CONTENT_SECURITY_POLICY;
use axum::response::{Html, IntoResponse};
use data_encoding::BASE64;
use sha2::{Digest, Sha256};

/// The scripts, which are inserted where the document refers to them.
const SCRIPTS: [(&str, &str); 5] = [
    ("format.js", include_str!("page/format.js")),
    ("chart.js", include_str!("page/chart.js")),
    ("tables.js", include_str!("page/tables.js")),
    ("log.js", include_str!("page/log.js")),
    ("page.js", include_str!("page/page.js")),
];
const STYLE: &str = include_str!("page/page.css");

static PAGE: LazyLock<Page> = LazyLock::new(Page::assemble);

/// The page. Its policy permits only its own scripts and style, and requests to this address.
pub(super) async fn page() -> impl IntoResponse {
    let Page { html, policy } = &*PAGE;
    ([(CONTENT_SECURITY_POLICY, policy.as_str())], Html(&**html))
}

struct Page {
    html: String,
    /// Its `Content-Security-Policy`.
    policy: String,
}

impl Page {
    fn assemble() -> Self {
        let mut html = include_str!("page/page.html").replace(
            "<link rel=\"stylesheet\" href=\"page.css\">",
            &format!("<style>{STYLE}</style>"),
        );
        let mut scripts = String::new();
        for (name, script) in SCRIPTS {
            html = html.replace(
                &format!("<script src=\"{name}\"></script>"),
                &format!("<script>{script}</script>"),
            );
            scripts.push(' ');
            scripts.push_str(&source(script));
        }
        let policy = format!(
            "default-src 'none'; script-src{scripts}; style-src {}; img-src data:; \
             connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            source(STYLE)
        );
        Self { html, policy }
    }
}

/// The source expression of the policy for an inline script or style.
fn source(text: &str) -> String {
    format!("'sha256-{}'", BASE64.encode(&Sha256::digest(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_contains_everything_that_it_uses() {
        let Page { html, policy } = Page::assemble();
        assert!(html.contains(STYLE) && policy.contains(&source(STYLE)));
        for (name, script) in SCRIPTS {
            assert!(html.contains(script), "{name}");
            assert!(policy.contains(&source(script)), "{name}");
            assert!(!script.contains("</script"), "{name} would end early");
        }
        for external in [" src=", "http://", "https://", "@import", "url("] {
            // A namespace, which is not requested.
            let html = html.replace("http://www.w3.org/2000/svg", "");
            assert!(!html.contains(external), "{external}");
        }
    }

    #[test]
    fn no_text_from_the_server_can_become_markup() {
        for (name, script) in SCRIPTS {
            for sink in [
                "innerHTML",
                "outerHTML",
                "insertAdjacentHTML",
                "document.write",
                "eval(",
                "Function(",
                "cssText",
            ] {
                assert!(!script.contains(sink), "{name}: {sink}");
            }
        }
    }
}
