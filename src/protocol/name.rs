//! Rules for the names of files that both sides of the wire follow.

/// The longest name of a file or directory, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// Whether it is an explicit directional override, embedding or isolate of Unicode (UAX #9), which
/// makes a name look like another one.
pub(crate) fn reorders_text(character: char) -> bool {
    matches!(character, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// `name (1).ext`, shortened if it would be too long. A directory has no extension, and neither has a
/// name whose only dot is its first character.
pub(crate) fn numbered_name(name: &str, is_dir: bool, number: u32) -> String {
    let (stem, extension) = match name.rfind('.') {
        Some(dot) if dot > 0 && !is_dir => name.split_at(dot),
        _ => (name, ""),
    };
    let suffix = format!(" ({number}){extension}");
    let (stem, suffix) = if suffix.len() < MAX_NAME_BYTES {
        (stem, suffix)
    } else {
        (name, format!(" ({number})"))
    };
    let mut cut = stem.len().min(MAX_NAME_BYTES - suffix.len());
    while !stem.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{suffix}", &stem[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_goes_before_the_extension() {
        for (name, is_dir, number, expected) in [
            ("a.txt", false, 1, "a (1).txt"),
            ("a.tar.gz", false, 2, "a.tar (2).gz"),
            (".profile", false, 3, ".profile (3)"),
            ("v1.2", true, 4, "v1.2 (4)"),
            ("plain", false, 5, "plain (5)"),
        ] {
            assert_eq!(numbered_name(name, is_dir, number), expected);
        }
    }

    #[test]
    fn a_long_name_is_cut_between_characters_to_make_room() {
        let name = format!("{}.txt", "ä".repeat(125));
        let candidate = numbered_name(&name, false, 10);
        assert!(candidate.len() <= MAX_NAME_BYTES && candidate.ends_with("ä (10).txt"));
        let candidate = numbered_name(&format!("a.{}", "x".repeat(253)), false, 10);
        assert!(candidate.len() <= MAX_NAME_BYTES && candidate.ends_with(" (10)"));
    }
}
