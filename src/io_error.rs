//! The description of a system error for a person.
//!
//! `std` appends the number of the error, as in `No such file or directory (os error 2)`, and describes
//! an error without a number in other words. A message of haul names neither.

use std::io;

/// The reason of `error` in the words of the system, without its number, as the end of a sentence:
/// `no such file or directory`.
#[must_use]
pub(crate) fn describe_io_error(error: &io::Error) -> String {
    let text = match (error.raw_os_error(), error.get_ref()) {
        (Some(_), _) => without_number(error.to_string()),
        // Another error inside may be one of the system, too.
        (None, Some(inner)) => match inner.downcast_ref::<io::Error>() {
            Some(inner) => return describe_io_error(inner),
            None => return without_number(inner.to_string()),
        },
        (None, None) => return describe_kind(error.kind()),
    };
    with_small_initial(text)
}

/// The words of the system for a kind that `std` describes in words of its own.
fn describe_kind(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => "no such file or directory".into(),
        io::ErrorKind::AlreadyExists => "file exists".into(),
        io::ErrorKind::StorageFull => "no space left on device".into(),
        io::ErrorKind::ReadOnlyFilesystem => "read-only file system".into(),
        io::ErrorKind::ResourceBusy => "device or resource busy".into(),
        kind => kind.to_string(),
    }
}

/// Removes every ` (os error N)`.
pub(crate) fn without_number(mut text: String) -> String {
    const START: &str = " (os error ";
    while let Some(start) = text.find(START)
        && let Some(length) = text[start..].find(')')
    {
        text.replace_range(start..=start + length, "");
    }
    text
}

/// Begins with a small letter, unless the first word is an abbreviation.
fn with_small_initial(text: String) -> String {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(first), Some(second)) if first.is_ascii_uppercase() && second.is_lowercase() => {
            let mut small = text;
            small[..1].make_ascii_lowercase();
            small
        }
        _ => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_system_is_described_without_its_number() {
        for (number, expected) in [
            (2, "no such file or directory"),
            (5, "input/output error"),
            (13, "permission denied"),
            (28, "no space left on device"),
        ] {
            let error = io::Error::from_raw_os_error(number);
            assert_eq!(describe_io_error(&error), expected);
        }
    }

    #[test]
    fn an_error_without_a_number_has_the_same_words() {
        let error = io::Error::from(io::ErrorKind::NotFound);
        assert_eq!(describe_io_error(&error), "no such file or directory");
        let error = io::Error::from(io::ErrorKind::IsADirectory);
        assert_eq!(describe_io_error(&error), "is a directory");
    }

    #[test]
    fn an_error_inside_another_is_described_too() {
        let error = io::Error::other(io::Error::from_raw_os_error(2));
        assert_eq!(describe_io_error(&error), "no such file or directory");
        let error = io::Error::other("cannot read a: Permission denied (os error 13)");
        assert_eq!(
            describe_io_error(&error),
            "cannot read a: Permission denied"
        );
    }
}
