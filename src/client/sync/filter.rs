//! Filters: which paths take part.
//!
//! Patterns have the syntax of gitignore. Those of the command line come first; then those of the
//! `.haulignore` files in the local tree, that of the deepest directory first. The first file with
//! a pattern that matches decides, and in it the last such pattern. Both sides are filtered by the
//! same patterns, so what is excluded is neither transferred nor deleted.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use crate::client::ClientError;
use crate::client::sync::entry::{WithheldReason, is_within, parent_of};

/// The name of the files with patterns in a local tree.
const IGNORE_FILE: &str = ".haulignore";

/// The limit of a file with patterns.
const MAX_PATTERN_BYTES: u64 = 1024 * 1024;

/// The patterns and limits of the command line.
#[derive(Debug, Clone, Default)]
pub struct FilterOptions {
    /// Files with patterns of what is left out.
    pub exclude_from: Vec<PathBuf>,
    /// Patterns of what is left out.
    pub exclude: Vec<String>,
    /// Patterns of what takes part although another pattern leaves it out.
    pub include: Vec<String>,
    /// Larger files are left out.
    pub max_size: Option<u64>,
    /// Smaller files are left out.
    pub min_size: Option<u64>,
}

/// The filter of one run, which each listing clones.
#[derive(Debug, Clone)]
pub(crate) struct PathFilter {
    shared: Arc<CompiledFilter>,
    /// Of the source: files of other sizes take no part.
    is_of_source: bool,
    /// The directories that contain the current path, the root first, each with its patterns.
    directories: Vec<(String, Option<Arc<Gitignore>>)>,
}

#[derive(Debug)]
struct CompiledFilter {
    patterns: Gitignore,
    /// The local root, below which the `.haulignore` files are.
    root: PathBuf,
    /// A path at and below which nothing takes part.
    reserved: Option<String>,
    max_size: Option<u64>,
    min_size: Option<u64>,
}

impl PathFilter {
    /// Compiles the patterns. `reserved` is a path below the roots that never takes part. Reads
    /// files.
    ///
    /// # Errors
    /// [`ClientError::Local`] if a file cannot be read or a pattern is malformed.
    pub(crate) fn new(
        options: &FilterOptions,
        root: PathBuf,
        reserved: Option<String>,
    ) -> Result<Self, ClientError> {
        let mut builder = GitignoreBuilder::new("");
        for path in &options.exclude_from {
            let patterns = read_patterns(path)
                .map_err(|source| ClientError::local("read the patterns of", path, source))?;
            add_patterns(&mut builder, path, patterns.lines())?;
        }
        let command_line = Path::new("the command line");
        let excludes = options.exclude.iter().map(String::as_str);
        add_patterns(&mut builder, command_line, excludes)?;
        let includes: Vec<_> = options
            .include
            .iter()
            .map(|pattern| format!("!{pattern}"))
            .collect();
        add_patterns(
            &mut builder,
            command_line,
            includes.iter().map(String::as_str),
        )?;
        Ok(Self {
            shared: Arc::new(CompiledFilter {
                patterns: compile(&builder, command_line)?,
                root,
                reserved,
                max_size: options.max_size,
                min_size: options.min_size,
            }),
            is_of_source: true,
            directories: Vec::new(),
        })
    }

    /// The filter for the destination, where the size of a file that is replaced does not matter.
    pub(crate) fn of_destination(&self) -> Self {
        Self {
            is_of_source: false,
            ..self.clone()
        }
    }

    /// Whether this is the filter of the destination, and the local source has no directory of this path.
    pub(crate) fn is_missing_in_source(&self, path: &str) -> bool {
        !self.is_of_source && !self.shared.root.join(path).is_dir()
    }

    /// Why this path takes no part, if it takes none. Paths come in the order of the listings; what
    /// is below an excluded directory does not come. Reads files.
    ///
    /// # Errors
    /// [`ClientError::Local`] if a `.haulignore` file cannot be read or is malformed: to go on
    /// without it could delete what it is to protect.
    pub(crate) fn check(
        &mut self,
        path: &str,
        is_dir: bool,
        size: u64,
    ) -> Result<Option<WithheldReason>, ClientError> {
        self.enter(parent_of(path))?;
        let is_reserved = |reserved: &String| is_within(path, reserved);
        if self.shared.reserved.as_ref().is_some_and(is_reserved) {
            return Ok(Some(WithheldReason::BackupDirectory));
        }
        if self.excludes(path, is_dir) {
            return Ok(Some(WithheldReason::Excluded));
        }
        if is_dir || !self.is_of_source {
            return Ok(None);
        }
        Ok(self.check_size(size))
    }

    /// Why a file of this size takes no part, if it takes none.
    pub(crate) fn check_size(&self, size: u64) -> Option<WithheldReason> {
        if self.shared.max_size.is_some_and(|limit| size > limit) {
            return Some(WithheldReason::TooLarge);
        }
        if self.shared.min_size.is_some_and(|limit| size < limit) {
            return Some(WithheldReason::TooSmall);
        }
        None
    }

    fn excludes(&self, path: &str, is_dir: bool) -> bool {
        let files = self.directories.iter().rev();
        let files = files.filter_map(|(_, patterns)| patterns.as_deref());
        for patterns in std::iter::once(&self.shared.patterns).chain(files) {
            match patterns.matched(path, is_dir) {
                Match::None => {}
                Match::Ignore(_) => return true,
                Match::Whitelist(_) => return false,
            }
        }
        false
    }

    /// Reads the `.haulignore` files from the root to this directory that are not known yet.
    fn enter(&mut self, directory: &str) -> Result<(), ClientError> {
        while let Some((last, _)) = self.directories.last()
            && !is_within(directory, last)
        {
            self.directories.pop();
        }
        loop {
            let next = match self.directories.last() {
                None => "",
                Some((last, _)) if last == directory => return Ok(()),
                Some((last, _)) => child_towards(last, directory),
            };
            let patterns = self.read_ignore_file(next)?;
            self.directories.push((next.to_owned(), patterns));
        }
    }

    fn read_ignore_file(&self, directory: &str) -> Result<Option<Arc<Gitignore>>, ClientError> {
        let path = self.shared.root.join(directory).join(IGNORE_FILE);
        let patterns = match read_patterns(&path) {
            Ok(patterns) => patterns,
            Err(error) if is_absent(&path, &error) => return Ok(None),
            Err(source) => {
                return Err(ClientError::local("read the patterns of", path, source));
            }
        };
        let mut builder = GitignoreBuilder::new(directory);
        add_patterns(&mut builder, &path, patterns.lines())?;
        Ok(Some(Arc::new(compile(&builder, &path)?)))
    }
}

/// Whether a directory has no file with patterns: it may be a file on this side, or not exist. A
/// directory that must not be searched has none either: the scan reports it, and then nothing is
/// deleted.
fn is_absent(path: &Path, error: &io::Error) -> bool {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => true,
        io::ErrorKind::PermissionDenied => path
            .symlink_metadata()
            .is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied),
        _ => false,
    }
}

/// The directory in `ancestor` that contains `path` or is it.
fn child_towards<'a>(ancestor: &str, path: &'a str) -> &'a str {
    let start = if ancestor.is_empty() {
        0
    } else {
        ancestor.len() + 1
    };
    let length = path[start..].find('/').unwrap_or(path.len() - start);
    &path[..start + length]
}

fn read_patterns(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let file = File::open(path)?;
    if file.metadata()?.len() > MAX_PATTERN_BYTES {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    file.take(MAX_PATTERN_BYTES).read_to_string(&mut text)?;
    Ok(text)
}

fn add_patterns<'a>(
    builder: &mut GitignoreBuilder,
    from: &Path,
    patterns: impl Iterator<Item = &'a str>,
) -> Result<(), ClientError> {
    for pattern in patterns {
        builder
            .add_line(None, pattern)
            .map_err(|error| malformed(from, &error))?;
    }
    Ok(())
}

fn compile(builder: &GitignoreBuilder, from: &Path) -> Result<Gitignore, ClientError> {
    builder.build().map_err(|error| malformed(from, &error))
}

fn malformed(from: &Path, error: &ignore::Error) -> ClientError {
    ClientError::local(
        "use the patterns of",
        from,
        io::Error::other(error.to_string()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filter(options: &FilterOptions, root: &Path) -> PathFilter {
        PathFilter::new(options, root.to_owned(), None).expect("sound patterns")
    }

    fn is_excluded(filter: &mut PathFilter, path: &str, is_dir: bool) -> bool {
        let reason = filter.check(path, is_dir, 0).expect("readable");
        matches!(reason, Some(WithheldReason::Excluded))
    }

    #[test]
    fn an_include_pattern_outweighs_exclude_patterns() {
        let options = FilterOptions {
            exclude: vec!["*.log".into(), "/build/".into()],
            include: vec!["keep.log".into()],
            ..FilterOptions::default()
        };
        let directory = tempfile::tempdir().expect("a directory");
        let mut filter = filter(&options, directory.path());
        for (path, is_dir, excluded) in [
            ("a.log", false, true),
            ("build", true, true),
            ("keep.log", false, false),
            ("sub", true, false),
            ("sub/a.log", false, true),
            ("sub/build", true, false),
            ("sub/keep.log", false, false),
        ] {
            assert_eq!(is_excluded(&mut filter, path, is_dir), excluded, "{path}");
        }
    }

    #[test]
    fn the_file_of_the_deepest_directory_decides_and_the_command_line_before_all() {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, text).expect("written");
        };
        write(".haulignore", "*.tmp\n# a comment\n*.bak\n");
        write("a/b/.haulignore", "!*.tmp\n/x\n");
        let options = FilterOptions {
            exclude: vec!["never.tmp".into()],
            ..FilterOptions::default()
        };
        let mut filter = filter(&options, directory.path());
        for (path, excluded) in [
            ("a/1.tmp", true),
            ("a/b/1.tmp", false),
            ("a/b/c/1.bak", true),
            ("a/b/c/x", false),
            ("a/b/never.tmp", true),
            ("a/b/x", true),
            ("a/c/1.tmp", true),
            ("d/x", false),
        ] {
            assert_eq!(is_excluded(&mut filter, path, false), excluded, "{path}");
        }
    }

    #[test]
    fn limits_of_size_apply_to_files_only() {
        let options = FilterOptions {
            max_size: Some(10),
            min_size: Some(5),
            ..FilterOptions::default()
        };
        let directory = tempfile::tempdir().expect("a directory");
        let mut filter = filter(&options, directory.path());
        let mut check = |is_dir, size| filter.check("a", is_dir, size).expect("readable");
        assert!(
            check(true, 0).is_none() && check(false, 5).is_none() && check(false, 10).is_none()
        );
        assert!(matches!(check(false, 11), Some(WithheldReason::TooLarge)));
        assert!(matches!(check(false, 4), Some(WithheldReason::TooSmall)));
    }

    #[test]
    fn a_malformed_pattern_is_an_error() {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::write(directory.path().join(IGNORE_FILE), "[z-a]").expect("written");
        let mut filter = filter(&FilterOptions::default(), directory.path());
        assert!(filter.check("x", false, 0).is_err());
    }

    fn is_reserved(filter: &mut PathFilter, path: &str) -> bool {
        let reason = filter.check(path, false, 0).expect("readable");
        matches!(reason, Some(WithheldReason::BackupDirectory))
    }

    #[test]
    fn a_reserved_path_takes_no_part() {
        let root = PathBuf::from("/nowhere");
        let options = FilterOptions::default();
        let mut filter =
            PathFilter::new(&options, root, Some("old/kept".into())).expect("no patterns");
        assert!(is_reserved(&mut filter, "old/kept"));
        assert!(!is_excluded(&mut filter, "old/kept.d", true));
    }
}
