//! Virtual paths: any text, relative to any other, compared with a naive implementation of the
//! rules.
//!
//! An input is two paths with a line break between them: the current directory, and the requested
//! path.

use haul::storage::{InvalidPath, InvalidPathReason as Reason, VirtualPath};

pub(crate) fn check(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let (base, text) = text.split_once('\n').unwrap_or(("/", &text));
    let root = Vec::new();
    let parsed = VirtualPath::parse(base);
    compare(&parsed, &model(&root, base));
    let base = parsed.unwrap_or_else(|_| VirtualPath::root());
    let names: Vec<_> = base.components().map(str::to_owned).collect();
    let resolved = base.resolve(text);
    compare(&resolved, &model(&names, text));
    if let Ok(path) = &resolved {
        check_path(path, text);
        check_order(path, &base);
    }
    check_name(&base, text);
}

/// The rules of PROTOCOL for paths; the result is the names from the root.
fn model(base: &[String], text: &str) -> Result<Vec<String>, Reason> {
    if text.is_empty() {
        return Err(Reason::Empty);
    }
    if text.len() > 4096 {
        return Err(Reason::TooLong);
    }
    let mut names = if text.starts_with('/') {
        Vec::new()
    } else {
        base.to_vec()
    };
    for name in text.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name if name.len() > 255 => return Err(Reason::ComponentTooLong),
            name if name.chars().any(char::is_control) => return Err(Reason::Control),
            name if name.chars().any(is_bidi) => return Err(Reason::Bidi),
            name => names.push(name.to_owned()),
        }
    }
    if names.len() > 64 {
        return Err(Reason::TooDeep);
    }
    if absolute(&names).len() > 4096 {
        return Err(Reason::TooLong);
    }
    Ok(names)
}

fn is_bidi(character: char) -> bool {
    ('\u{202a}'..='\u{202e}').contains(&character) || ('\u{2066}'..='\u{2069}').contains(&character)
}

fn absolute(names: &[String]) -> String {
    format!("/{}", names.join("/"))
}

fn compare(actual: &Result<VirtualPath, InvalidPath>, expected: &Result<Vec<String>, Reason>) {
    match (actual, expected) {
        (Ok(path), Ok(names)) => assert_eq!(path.as_str(), absolute(names)),
        (Err(error), Err(reason)) => {
            assert_eq!(error.reason(), *reason);
            let shown = error.to_string();
            assert!(
                !shown.contains(|c| char::is_control(c) || is_bidi(c)),
                "{shown}"
            );
            assert!(shown.len() < 1024, "{} bytes", shown.len());
        }
        _ => panic!("{actual:?}, not {expected:?}"),
    }
}

fn check_path(path: &VirtualPath, text: &str) {
    let shown = path.as_str();
    assert!(shown.starts_with('/') && shown.len() <= 4096);
    assert!(path.components().count() <= 64);
    for name in path.components() {
        assert!(!matches!(name, "" | "." | "..") && name.len() <= 255);
        assert!(!name.contains(|c| char::is_control(c) || c == '/'));
    }
    assert_eq!(path.to_string(), shown);
    assert_eq!(VirtualPath::parse(shown).as_ref(), Ok(path), "not normal");
    assert_eq!(path.resolve(".").as_ref(), Ok(path));

    let last = text.rsplit('/').next();
    let as_dir = matches!(last, Some("" | "." | ".."));
    assert_eq!(path.is_written_as_dir(), as_dir);
    assert_eq!(path.as_file().is_ok(), !as_dir || shown == "/");

    match (path.parent(), path.name()) {
        (None, None) => assert_eq!(shown, "/"),
        (Some(parent), Some(name)) => {
            assert_eq!(path.resolve("..").as_ref(), Ok(&parent));
            assert_eq!(parent.join_name(name).as_ref(), Ok(path));
            assert!(path.starts_with(&parent) && !parent.starts_with(path));
        }
        parts => panic!("{shown} has the parts {parts:?}"),
    }
}

fn check_order(path: &VirtualPath, other: &VirtualPath) {
    let names: Vec<_> = path.components().collect();
    let others: Vec<_> = other.components().collect();
    assert_eq!(path.starts_with(other), names.starts_with(&others));
    assert_eq!(path == other, names == others);
    assert_eq!(path.cmp(other).is_eq(), path == other);
}

/// Checks that only a valid name is joined to a directory.
fn check_name(base: &VirtualPath, name: &str) {
    if let Ok(joined) = base.join_name(name) {
        assert!(!name.contains('/') && !matches!(name, "" | "." | ".."));
        assert_eq!(joined.name(), Some(name));
        assert_eq!(joined.parent().as_ref(), Some(base));
    }
}
