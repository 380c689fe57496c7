//! The file mode creation mask of this process.

use std::sync::OnceLock;

/// The mask if the system does not tell it.
const USUAL_MASK: u32 = 0o022;

/// The permission bits that files of this process do not get. It is read once, from `/proc`: the system
/// call that returns it sets it, too, and other threads may create files meanwhile.
pub(crate) fn umask() -> u32 {
    static MASK: OnceLock<u32> = OnceLock::new();
    *MASK.get_or_init(|| {
        let status = std::fs::read_to_string("/proc/self/status");
        status.ok().as_deref().and_then(parse).unwrap_or(USUAL_MASK)
    })
}

fn parse(status: &str) -> Option<u32> {
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))?;
    u32::from_str_radix(mask.trim(), 8).ok()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_mask_is_that_by_which_files_are_created() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("a");
        std::fs::write(&path, "").expect("written");
        let mode = path.metadata().expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o666 & !umask());
        assert_eq!(parse("Name:\ta\nUmask:\t0077\nState:\tR\n"), Some(0o077));
        assert_eq!(parse("Name:\ta\n"), None);
    }
}
