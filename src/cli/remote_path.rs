//! Paths on the server, as text.

use crate::client::join;

/// Whether a colon marks a path as one on the server.
pub(super) fn is_marked_remote(path: &str) -> bool {
    path.starts_with(':')
}

/// A path on the server without the colon that may mark it as one.
pub(super) fn without_mark(path: &str) -> &str {
    match path.strip_prefix(':') {
        Some("") => ".",
        Some(path) => path,
        None => path,
    }
}

/// The components of a path seen from `cwd`.
pub(super) fn absolute<'a>(cwd: &'a str, path: &'a str) -> Vec<&'a str> {
    let cwd = if path.starts_with('/') { "" } else { cwd };
    let mut components = Vec::new();
    for component in cwd.split('/').chain(path.split('/')) {
        match component {
            "" | "." => {}
            ".." if components.last().is_some_and(|last| *last != "..") => {
                components.pop();
            }
            name => components.push(name),
        }
    }
    components
}

/// The last component of a path, unless it names a place by where it is: `/`, `.` or `..`.
pub(super) fn last_name(path: &str) -> Option<&str> {
    let name = path.trim_end_matches('/').rsplit('/').next();
    name.filter(|name| !matches!(*name, "" | "." | ".."))
}

/// Where `path` goes in a directory: under its last name, or what is in it if it has none.
pub(super) fn under_own_name(directory: &str, path: &str) -> String {
    match last_name(path) {
        Some(name) => join(directory, name),
        None => directory.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_name_is_what_cp_would_take() {
        for (path, name) in [
            ("a", Some("a")),
            ("/a/b", Some("b")),
            ("a/b//", Some("b")),
            ("/", None),
            ("", None),
            ("a/..", None),
            ("./", None),
        ] {
            assert_eq!(last_name(path), name, "{path}");
        }
    }

    #[test]
    fn a_colon_marks_a_path_on_the_server_and_is_no_part_of_it() {
        for (path, remote) in [(":/a", "/a"), (":a:b", "a:b"), (":", "."), ("a:", "a:")] {
            assert_eq!(without_mark(path), remote, "{path}");
        }
        assert!(is_marked_remote(":a") && !is_marked_remote("./:a"));
    }

    #[test]
    fn what_goes_into_a_directory_keeps_its_name_if_it_has_one() {
        assert_eq!(under_own_name("a", "x/b"), "a/b");
        assert_eq!(under_own_name("a/", "b/"), "a/b");
        assert_eq!(under_own_name("/", "b"), "/b");
        assert_eq!(under_own_name("a", ".."), "a");
    }

    #[test]
    fn a_path_is_the_same_however_it_is_written() {
        assert_eq!(absolute("/x", "a/../b/"), absolute("/", "/x//./b"));
        assert_ne!(absolute("", "../a"), absolute("", "a"));
        assert_ne!(absolute("", "../../a"), absolute("", "a"));
    }
}
