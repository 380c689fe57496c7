//! Virtual paths: the names that members use for files, parsed once and valid from then on.
//!
//! `.` and `..` are resolved here, on the text alone and before anything is opened. Symbolic links on
//! the way are the concern of the engine's resolver.

use std::fmt;

use crate::protocol::{MAX_NAME_BYTES, reorders_text};

/// The longest path in bytes that system calls accept.
const MAX_PATH_BYTES: usize = 4096;

/// The most components of a path.
const MAX_LEVELS: usize = 64;

/// An absolute, normalised path within a member's view, such as `/reports/a.pdf`.
///
/// It has no empty component, no `.` or `..`, no control character and no character that reorders
/// text. A path that was written with a trailing slash (`reports/`) names no file, but equals the path
/// without the slash.
#[derive(Debug, Clone)]
pub struct VirtualPath {
    /// Begins with `/`; ends with one only at the root.
    text: String,
    written_as_dir: bool,
}

impl VirtualPath {
    /// The root, `/`.
    #[must_use]
    pub fn root() -> Self {
        Self {
            text: "/".to_owned(),
            written_as_dir: true,
        }
    }

    /// Parses `text`, relative to the root.
    ///
    /// # Errors
    /// [`InvalidPath`] if `text` is not a valid path.
    pub fn parse(text: &str) -> Result<Self, InvalidPath> {
        Self::root().resolve(text)
    }

    /// Parses `text`, relative to this path unless it is absolute. `..` at the root stays there.
    ///
    /// # Errors
    /// [`InvalidPath`] if `text` is not a valid path.
    pub fn resolve(&self, text: &str) -> Result<Self, InvalidPath> {
        let refused = |reason| Err(InvalidPath::new(text, reason));
        if text.is_empty() {
            return refused(InvalidPathReason::Empty);
        }
        if text.len() > MAX_PATH_BYTES {
            return refused(InvalidPathReason::TooLong);
        }
        let mut path = if text.starts_with('/') {
            Self::root()
        } else {
            self.clone()
        };
        for component in text.split('/') {
            if let Err(reason) = path.push(component) {
                return refused(reason);
            }
        }
        path.check_descendants(0, 0)?;
        Ok(path)
    }

    /// Makes sure that a descendant so many levels and bytes below has a valid path.
    pub(crate) fn check_descendants(&self, levels: usize, bytes: usize) -> Result<(), InvalidPath> {
        let reason = if self.components().count() + levels > MAX_LEVELS {
            InvalidPathReason::TooDeep
        } else if self.text.len() + bytes > MAX_PATH_BYTES {
            InvalidPathReason::TooLong
        } else {
            return Ok(());
        };
        Err(InvalidPath::new(&self.text, reason))
    }

    /// Appends one component, and records whether the path can only name a directory.
    fn push(&mut self, component: &str) -> Result<(), InvalidPathReason> {
        self.written_as_dir = matches!(component, "" | "." | "..");
        match component {
            "" | "." => {}
            ".." => {
                let end = self.text.rfind('/').unwrap_or(0);
                self.text.truncate(end.max(1));
            }
            name => {
                check_component(name)?;
                if self.text.len() > 1 {
                    self.text.push('/');
                }
                self.text.push_str(name);
            }
        }
        Ok(())
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// [`InvalidPath`] if `name` is not a single component, or the path would be too long or deep.
    pub fn join_name(&self, name: &str) -> Result<Self, InvalidPath> {
        if name.contains('/') || matches!(name, "." | "..") {
            return Err(InvalidPath::new(name, InvalidPathReason::NotOneName));
        }
        if name.is_empty() {
            return Err(InvalidPath::new(name, InvalidPathReason::Empty));
        }
        let mut path = Self {
            text: String::with_capacity(self.text.len() + 1 + name.len()),
            written_as_dir: false,
        };
        path.text.push_str(&self.text);
        path.push(name)
            .map_err(|reason| InvalidPath::new(name, reason))?;
        path.check_descendants(0, 0)?;
        Ok(path)
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The names from the root to the entry; none for the root.
    pub fn components(&self) -> impl Iterator<Item = &str> {
        self.text.split('/').filter(|name| !name.is_empty())
    }

    /// The parent directory; `None` for the root.
    #[must_use]
    pub fn parent(&self) -> Option<Self> {
        let (parent, name) = self.text.rsplit_once('/')?;
        (!name.is_empty()).then(|| Self {
            text: if parent.is_empty() { "/" } else { parent }.to_owned(),
            written_as_dir: true,
        })
    }

    /// The last component; `None` for the root.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        let (_, name) = self.text.rsplit_once('/')?;
        (!name.is_empty()).then_some(name)
    }

    /// Whether this is `other` or a descendant of it.
    #[must_use]
    pub fn starts_with(&self, other: &Self) -> bool {
        self.text
            .strip_prefix(other.text.trim_end_matches('/'))
            .is_some_and(|suffix| suffix.is_empty() || suffix.starts_with('/'))
    }

    /// Whether the text can only name a directory: `a/`, `a/.` or `a/b/..`.
    #[must_use]
    pub fn is_written_as_dir(&self) -> bool {
        self.written_as_dir
    }

    /// This path, if it can name a file.
    ///
    /// # Errors
    /// [`InvalidPath`] if it was written with a trailing slash.
    pub fn as_file(&self) -> Result<&Self, InvalidPath> {
        if self.written_as_dir && self.text.len() > 1 {
            let reason = InvalidPathReason::TrailingSlash;
            return Err(InvalidPath::new(&format!("{}/", self.text), reason));
        }
        Ok(self)
    }

    /// The first component, and the path relative to it; `None` for the root.
    pub(crate) fn split_first(&self) -> Option<(&str, Self)> {
        let rest = &self.text[1..];
        let end = rest.find('/').unwrap_or(rest.len());
        let inner = Self {
            text: if end == rest.len() { "/" } else { &rest[end..] }.to_owned(),
            written_as_dir: self.written_as_dir,
        };
        (end > 0).then(|| (&rest[..end], inner))
    }

    /// The path in a system call, relative to an open root.
    pub(crate) fn relative(&self) -> &str {
        match &self.text[1..] {
            "" => ".",
            relative => relative,
        }
    }
}

/// Whether a name on the disk can be part of a path, and so may be shown.
pub(crate) fn is_valid_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains('/') && check_component(name).is_ok()
}

fn check_component(name: &str) -> Result<(), InvalidPathReason> {
    if name.len() > MAX_NAME_BYTES {
        return Err(InvalidPathReason::ComponentTooLong);
    }
    if name.contains(char::is_control) {
        return Err(InvalidPathReason::Control);
    }
    if name.contains(reorders_text) {
        return Err(InvalidPathReason::Bidi);
    }
    Ok(())
}

impl PartialEq for VirtualPath {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for VirtualPath {}

impl std::hash::Hash for VirtualPath {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

impl Ord for VirtualPath {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.text.cmp(&other.text)
    }
}

impl PartialOrd for VirtualPath {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for VirtualPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A text that is not a valid path, or not one for the operation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid path: {reason}: {shown}")]
pub struct InvalidPath {
    reason: InvalidPathReason,
    /// The text, escaped and shortened, because it may contain anything.
    shown: String,
}

/// Why a path is invalid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPathReason {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// It contains NUL or another control character.
    #[error("it contains a control character")]
    Control,
    /// It contains a character that reorders the text around it.
    #[error("it contains a character that reorders text")]
    Bidi,
    /// A component is longer than 255 bytes.
    #[error("a name in it is longer than {MAX_NAME_BYTES} bytes")]
    ComponentTooLong,
    /// It is longer than 4096 bytes.
    #[error("it is longer than {MAX_PATH_BYTES} bytes")]
    TooLong,
    /// It has more than 64 components.
    #[error("it is deeper than {MAX_LEVELS} levels")]
    TooDeep,
    /// The name of a file ends in a slash.
    #[error("the name of a file cannot end in a slash")]
    TrailingSlash,
    /// It must be a single name.
    #[error("it is not a single name")]
    NotOneName,
    /// A directory would become its own descendant.
    #[error("a directory cannot be moved or copied into itself")]
    IntoItself,
}

impl InvalidPath {
    pub(crate) fn new(text: &str, reason: InvalidPathReason) -> Self {
        const MAX_SHOWN_CHARS: usize = 80;
        let mut shown: String = text
            .chars()
            .take(MAX_SHOWN_CHARS)
            .flat_map(escape)
            .collect();
        if text.chars().nth(MAX_SHOWN_CHARS).is_some() {
            shown.push('…');
        }
        Self { reason, shown }
    }

    /// Why the path is invalid.
    #[must_use]
    pub fn reason(&self) -> InvalidPathReason {
        self.reason
    }
}

fn escape(character: char) -> impl Iterator<Item = char> {
    let escaped = character.is_control() || reorders_text(character);
    let plain = (!escaped).then_some(character);
    plain.into_iter().chain(
        escaped
            .then(|| character.escape_default())
            .into_iter()
            .flatten(),
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> VirtualPath {
        VirtualPath::parse(text).expect("sound")
    }

    #[test]
    fn dots_are_resolved_and_never_climb_over_the_root() {
        let reports = path("/reports/2024");
        for (text, expected) in [
            (".", "/reports/2024"),
            ("..", "/reports"),
            ("../../..", "/"),
            ("../../../etc/passwd", "/etc/passwd"),
            ("a/../../x", "/reports/x"),
            ("a//b/./c", "/reports/2024/a/b/c"),
            ("/", "/"),
            ("/a/", "/a"),
            ("…", "/reports/2024/…"),
            ("...", "/reports/2024/..."),
        ] {
            assert_eq!(reports.resolve(text).expect(text).as_str(), expected);
        }
    }

    #[test]
    fn an_invalid_path_is_rejected_before_anything_is_opened() {
        use InvalidPathReason as Reason;
        let deep = "a/".repeat(65);
        let wide = "a".repeat(256);
        let hidden = format!("{wide}/..");
        let long = "./".repeat(2049);
        let longer = format!("{}/b", ["a".repeat(127).as_str(); 31].join("/"));
        for (text, reason) in [
            ("", Reason::Empty),
            ("a\0b", Reason::Control),
            ("a\nb", Reason::Control),
            ("\u{1b}[2J", Reason::Control),
            ("a\u{85}b", Reason::Control),
            ("a\u{202e}fdp.exe", Reason::Bidi),
            ("a\u{2066}b", Reason::Bidi),
            (&wide, Reason::ComponentTooLong),
            (&hidden, Reason::ComponentTooLong),
            (&deep, Reason::TooDeep),
            (&long, Reason::TooLong),
        ] {
            let refused = VirtualPath::parse(text).expect_err(text);
            assert_eq!(refused.reason(), reason, "{refused}");
            assert!(!refused.to_string().contains(char::is_control));
        }
        let base = path(&longer);
        let refused = base.resolve(&longer).expect_err("8 KiB together");
        assert_eq!(refused.reason(), Reason::TooLong);
    }

    #[test]
    fn a_path_with_a_trailing_slash_names_no_file_but_equals_the_path_without() {
        for text in ["a.bin/", "a.bin/.", "a.bin/x/.."] {
            assert!(path(text).is_written_as_dir(), "{text}");
            assert!(path(text).as_file().is_err(), "{text}");
            assert_eq!(path(text), path("a.bin"));
        }
        assert!(path("a.bin").as_file().is_ok());
        assert!(path("/").as_file().is_ok());
    }

    #[test]
    fn a_path_knows_its_parts() {
        let deep = path("/a/b/c");
        assert_eq!(deep.name(), Some("c"));
        assert_eq!(deep.parent(), Some(path("/a/b")));
        assert_eq!(deep.components().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(path("/a").parent(), Some(VirtualPath::root()));
        assert_eq!(VirtualPath::root().parent(), None);
        assert_eq!(VirtualPath::root().name(), None);
        assert!(deep.starts_with(&path("/a")) && deep.starts_with(&deep));
        assert!(deep.starts_with(&VirtualPath::root()));
        assert!(!path("/ab").starts_with(&path("/a")));
        assert_eq!(path("/a").join_name("b"), Ok(path("/a/b")));
        for name in ["", ".", "..", "a/b", "/"] {
            assert!(path("/a").join_name(name).is_err(), "{name}");
        }
        assert_eq!(deep.split_first(), Some(("a", path("/b/c"))));
        assert_eq!(path("/a").split_first(), Some(("a", VirtualPath::root())));
        assert_eq!(VirtualPath::root().split_first(), None);
    }

    proptest! {
        #[test]
        fn any_text_is_rejected_or_becomes_a_normal_path(text in "\\PC*|[./a\u{202e}\n]{0,40}") {
            if let Ok(path) = VirtualPath::parse(&text) {
                let text = path.as_str();
                prop_assert!(text.starts_with('/'));
                prop_assert!(text == "/" || text[1..].split('/').all(is_valid_name));
                prop_assert_eq!(&VirtualPath::parse(text).expect("normal"), &path);
                prop_assert!(path.relative() == "." || !path.relative().starts_with('/'));
            }
        }

        #[test]
        fn resolving_a_path_equals_resolving_its_components_one_by_one(steps in prop::collection::vec("[abc]|\\.|\\.\\.", 1..20)) {
            let mut walked = path("/start/here");
            for step in &steps {
                walked = walked.resolve(step).expect("shallow");
            }
            prop_assert_eq!(path("/start/here").resolve(&steps.join("/")).expect("shallow"), walked);
        }

        #[test]
        fn a_child_starts_with_its_parent(text in "(/[a-z]{1,3}){1,6}") {
            let child = path(&text);
            let parent = child.parent().expect("not the root");
            prop_assert!(child.starts_with(&parent) && !parent.starts_with(&child));
            prop_assert_eq!(parent.join_name(child.name().expect("not the root")), Ok(child));
        }
    }
}
