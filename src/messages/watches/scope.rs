//! Scopes: where a watched path leads, and where what happens there is seen.

use std::sync::Arc;

/// A part of a space that a watch covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WatchScope {
    /// The space.
    pub space: Arc<str>,
    /// The absolute path within it.
    pub inner: String,
    /// The path that the session sees it at.
    pub path: String,
    /// Names in it that the session does not see, since a folder has that name.
    pub hidden: Vec<String>,
}

impl WatchScope {
    /// The path at which the session sees a path of the space, if that is the watched one, below
    /// it, or above it: what happens to a directory happens to all that it holds.
    pub(super) fn sees(&self, path: &str) -> Option<String> {
        if let Some(rest) = below(path, &self.inner) {
            let first = rest.split('/').nth(1);
            if first.is_some_and(|first| self.hidden.iter().any(|name| name == first)) {
                return None;
            }
            let seen = format!("{}{rest}", self.path.trim_end_matches('/'));
            return Some(if seen.is_empty() { "/".into() } else { seen });
        }
        let rest = below(&self.inner, path)?;
        // What a link leads to may lie elsewhere than the link: then there is no such path.
        let above = self.path.strip_suffix(rest);
        let above = above.filter(|above| !above.is_empty());
        Some(above.unwrap_or(&self.path).to_owned())
    }
}

/// What has to be added to `dir` to get `path`, if it is that or lies below.
fn below<'a>(path: &'a str, dir: &str) -> Option<&'a str> {
    let rest = path.strip_prefix(dir.trim_end_matches('/'))?;
    (rest.is_empty() || rest.starts_with('/')).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(inner: &str, path: &str) -> WatchScope {
        WatchScope {
            space: "homes/alice".into(),
            inner: inner.to_owned(),
            path: path.to_owned(),
            hidden: Vec::new(),
        }
    }

    fn sees(inner: &str, path: &str, changed: &str) -> Option<String> {
        scope(inner, path).sees(changed)
    }

    #[test]
    fn what_happens_at_or_below_the_path_is_seen_where_the_session_sees_it() {
        assert_eq!(sees("/", "/", "/a/b").as_deref(), Some("/a/b"));
        assert_eq!(sees("/", "/team", "/a").as_deref(), Some("/team/a"));
        assert_eq!(sees("/a", "/team/a", "/a").as_deref(), Some("/team/a"));
        assert_eq!(sees("/a", "/team/a", "/a/b").as_deref(), Some("/team/a/b"));
        assert_eq!(sees("/a", "/team/a", "/ab"), None);
        assert_eq!(sees("/a", "/team/a", "/b/a"), None);
    }

    #[test]
    fn what_happens_above_the_path_is_seen_as_that() {
        assert_eq!(sees("/a/b/c", "/a/b/c", "/a").as_deref(), Some("/a"));
        assert_eq!(sees("/a/b", "/team/a/b", "/a").as_deref(), Some("/team/a"));
    }

    #[test]
    fn what_happens_to_a_place_that_a_link_leads_to_is_seen_at_the_link() {
        assert_eq!(sees("/2024", "/now", "/2024/a").as_deref(), Some("/now/a"));
        assert_eq!(sees("/2024/a", "/now/a", "/2024").as_deref(), Some("/now"));
        assert_eq!(sees("/old/a", "/now", "/old").as_deref(), Some("/now"));
        assert_eq!(sees("/old/now", "/now", "/old").as_deref(), Some("/now"));
    }

    #[test]
    fn what_a_folder_hides_is_not_seen() {
        let mut root = scope("/", "/");
        root.hidden = vec!["team".into()];
        assert_eq!(root.sees("/team"), None);
        assert_eq!(root.sees("/team/a"), None);
        assert_eq!(root.sees("/teams").as_deref(), Some("/teams"));
        assert_eq!(root.sees("/a/team").as_deref(), Some("/a/team"));
    }
}
