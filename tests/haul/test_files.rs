//! Content of test files, and the files of a directory.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// `length` bytes that depend on their position.
pub(crate) fn patterned_bytes(length: usize) -> Vec<u8> {
    let words = (0_u32..).flat_map(|number| number.wrapping_mul(2_654_435_761).to_le_bytes());
    words.take(length).collect()
}

/// The files below a directory with their content, by path.
pub(crate) fn files_below(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    walkdir::WalkDir::new(directory)
        .into_iter()
        .map(|entry| entry.expect("readable"))
        .filter(|entry| entry.file_type().is_file())
        .map(|entry| {
            let path = entry.path().strip_prefix(directory).expect("below it");
            let content = fs::read(entry.path()).expect("readable");
            (path.display().to_string(), content)
        })
        .collect()
}
