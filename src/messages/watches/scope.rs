//! The mapping from a changed path in a space to the path in a session's view.

use crate::storage::VisiblePath;

/// The path in the session's view of `changed`, a path of the scope's space. `None` if `changed` is
/// neither the watched path nor below nor above it. A change above counts, because a change of a
/// directory affects everything in it.
pub(crate) fn path_in_view(scope: &VisiblePath, changed: &str) -> Option<String> {
    let (inner, path) = (scope.inner.as_str(), scope.path.as_str());
    if let Some(remainder) = below(changed, inner) {
        let first = remainder.split('/').nth(1);
        if first.is_some_and(|first| scope.hidden.iter().any(|name| name == first)) {
            return None;
        }
        let seen = format!("{}{remainder}", path.trim_end_matches('/'));
        return Some(if seen.is_empty() { "/".into() } else { seen });
    }
    let remainder = below(inner, changed)?;
    // If a link leads to the watched path, the view may have no path for what is above it.
    let above = path.strip_suffix(remainder);
    let above = above.filter(|above| !above.is_empty());
    Some(above.unwrap_or(path).to_owned())
}

/// The part of `path` after `dir`, if `path` is `dir` or below it.
fn below<'a>(path: &'a str, dir: &str) -> Option<&'a str> {
    let remainder = path.strip_prefix(dir.trim_end_matches('/'))?;
    (remainder.is_empty() || remainder.starts_with('/')).then_some(remainder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::VirtualPath;

    fn scope(inner: &str, path: &str) -> VisiblePath {
        VisiblePath {
            space: "homes/alice".into(),
            inner: VirtualPath::parse(inner).expect("a path"),
            path: VirtualPath::parse(path).expect("a path"),
            hidden: Vec::new(),
        }
    }

    fn sees(inner: &str, path: &str, changed: &str) -> Option<String> {
        path_in_view(&scope(inner, path), changed)
    }

    #[test]
    fn a_change_at_or_below_the_path_is_seen_at_its_path_in_the_view() {
        assert_eq!(sees("/", "/", "/a/b").as_deref(), Some("/a/b"));
        assert_eq!(sees("/", "/team", "/a").as_deref(), Some("/team/a"));
        assert_eq!(sees("/a", "/team/a", "/a").as_deref(), Some("/team/a"));
        assert_eq!(sees("/a", "/team/a", "/a/b").as_deref(), Some("/team/a/b"));
        assert_eq!(sees("/a", "/team/a", "/ab"), None);
        assert_eq!(sees("/a", "/team/a", "/b/a"), None);
    }

    #[test]
    fn a_change_above_the_path_is_seen() {
        assert_eq!(sees("/a/b/c", "/a/b/c", "/a").as_deref(), Some("/a"));
        assert_eq!(sees("/a/b", "/team/a/b", "/a").as_deref(), Some("/team/a"));
    }

    #[test]
    fn a_change_of_the_target_of_a_link_is_seen_at_the_link() {
        assert_eq!(sees("/2024", "/now", "/2024/a").as_deref(), Some("/now/a"));
        assert_eq!(sees("/2024/a", "/now/a", "/2024").as_deref(), Some("/now"));
        assert_eq!(sees("/old/a", "/now", "/old").as_deref(), Some("/now"));
        assert_eq!(sees("/old/now", "/now", "/old").as_deref(), Some("/now"));
    }

    #[test]
    fn a_change_that_a_folder_hides_is_not_seen() {
        let mut root = scope("/", "/");
        root.hidden = vec!["team".into()];
        assert_eq!(path_in_view(&root, "/team"), None);
        assert_eq!(path_in_view(&root, "/team/a"), None);
        assert_eq!(path_in_view(&root, "/teams").as_deref(), Some("/teams"));
        assert_eq!(path_in_view(&root, "/a/team").as_deref(), Some("/a/team"));
    }
}
