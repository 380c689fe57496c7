//! Detection of renames: new files of the source that equal surplus files of the destination.
//!
//! Sizes, times and names, which the listings have, give the pairs whose digests are worth
//! computing. The digests decide.

use std::collections::{BTreeMap, HashMap};

use jiff::Timestamp;

use crate::client::sync::entry::{SyncEntry, is_same_time};
use crate::protocol::Digest;

/// A smaller file is looked for only if its modification time is equal, too: to send it costs no
/// more than to compare it.
const MIN_RENAME_BYTES: u64 = 16 * 1024;

/// Surplus files that are compared with one new file.
const MAX_CANDIDATES: usize = 4;

/// Surplus files of the same size and another equal property that are looked at for one new file.
const MAX_SIMILAR: usize = 32;

/// A file of the destination that the source does not have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SurplusFile {
    pub(crate) path: Box<str>,
    pub(crate) size: u64,
    pub(crate) modified: Timestamp,
}

impl From<&SyncEntry> for SurplusFile {
    fn from(entry: &SyncEntry) -> Self {
        Self {
            path: entry.path.as_str().into(),
            size: entry.size,
            modified: entry.modified,
        }
    }
}

/// For each new file, by its index, the surplus files that may be equal, the most likely first.
pub(crate) type RenameCandidates = BTreeMap<usize, Vec<usize>>;

/// A new file that is made from a surplus file, both by their indices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Rename {
    pub(crate) new: usize,
    pub(crate) surplus: usize,
    /// No other new file needs the surplus file.
    pub(crate) is_last_use: bool,
}

/// The pairs that may be equal.
pub(crate) fn rename_candidates(new: &[&SyncEntry], surplus: &[SurplusFile]) -> RenameCandidates {
    let index = SurplusIndex::new(surplus);
    let mut candidates = RenameCandidates::new();
    for (number, file) in new.iter().enumerate().filter(|(_, file)| file.size > 0) {
        let mut likely: Vec<_> = index
            .similar(file)
            .into_iter()
            .map(|other| (likelihood(file, &surplus[other]), other))
            .filter(|(likelihood, _)| file.size >= MIN_RENAME_BYTES || likelihood.is_same_time)
            .collect();
        likely.sort_by_key(|&(likelihood, other)| (std::cmp::Reverse(likelihood), other));
        likely.dedup();
        likely.truncate(MAX_CANDIDATES);
        if !likely.is_empty() {
            let others = likely.into_iter().map(|(_, other)| other);
            candidates.insert(number, others.collect());
        }
    }
    candidates
}

/// Surplus files by their size and another property. Each is looked up alone, so that many files of one
/// size are not all compared with each other.
#[derive(Default)]
struct SurplusIndex<'a> {
    times: HashMap<(u64, i64), Vec<usize>>,
    names: HashMap<(u64, &'a str), Vec<usize>>,
    sizes: HashMap<u64, Vec<usize>>,
}

impl<'a> SurplusIndex<'a> {
    fn new(surplus: &'a [SurplusFile]) -> Self {
        let mut index = Self::default();
        for (number, file) in surplus.iter().enumerate() {
            // Equal times are in the same second.
            let second = file.modified.as_nanosecond().div_euclid(1_000_000_000);
            let second = i64::try_from(second).unwrap_or(i64::MAX);
            let name = name(&file.path);
            index
                .times
                .entry((file.size, second))
                .or_default()
                .push(number);
            index
                .names
                .entry((file.size, name))
                .or_default()
                .push(number);
            index.sizes.entry(file.size).or_default().push(number);
        }
        index
    }

    /// Files of the size of `file`: some of the same time, some of the same name, and some others.
    fn similar(&self, file: &SyncEntry) -> Vec<usize> {
        let second = file.modified.as_nanosecond().div_euclid(1_000_000_000);
        let second = i64::try_from(second).unwrap_or(i64::MAX);
        let similar = [
            self.times.get(&(file.size, second)),
            self.names.get(&(file.size, name(&file.path))),
            self.sizes.get(&file.size),
        ];
        let some = |files: &Vec<usize>| files.iter().copied().take(MAX_SIMILAR).collect::<Vec<_>>();
        similar.into_iter().flatten().flat_map(some).collect()
    }
}

fn name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or_default()
}

/// How likely two files of the same size are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Likelihood {
    is_same_time: bool,
    is_same_name: bool,
}

fn likelihood(new: &SyncEntry, surplus: &SurplusFile) -> Likelihood {
    Likelihood {
        is_same_time: is_same_time(new.modified, surplus.modified),
        is_same_name: name(&new.path) == name(&surplus.path),
    }
}

/// Chooses for each new file a surplus file of the same digest. A digest that could not be computed
/// equals no other.
pub(crate) fn match_renames(
    candidates: &RenameCandidates,
    new_digest: impl Fn(usize) -> Option<Digest>,
    surplus_digest: impl Fn(usize) -> Option<Digest>,
) -> Vec<Rename> {
    let mut renames = Vec::new();
    let mut last_use = HashMap::new();
    for (&new, others) in candidates {
        let Some(digest) = new_digest(new) else {
            continue;
        };
        let equal = |other: &&usize| surplus_digest(**other) == Some(digest);
        let unused = others
            .iter()
            .filter(equal)
            .find(|other| !last_use.contains_key(*other));
        if let Some(&surplus) = unused.or_else(|| others.iter().find(equal)) {
            last_use.insert(surplus, renames.len());
            renames.push(Rename {
                new,
                surplus,
                is_last_use: false,
            });
        }
    }
    for index in last_use.into_values() {
        renames[index].is_last_use = true;
    }
    renames
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Algorithm, Kind};

    fn file(path: &str, size: u64, second: i64) -> SyncEntry {
        SyncEntry {
            path: path.to_owned(),
            kind: Kind::File,
            size,
            modified: Timestamp::from_second(second).expect("in range"),
            mode: None,
            version: None,
            digest: None,
        }
    }

    fn surplus(path: &str, size: u64, second: i64) -> SurplusFile {
        SurplusFile::from(&file(path, size, second))
    }

    #[test]
    fn candidates_have_the_same_size_and_the_likely_ones_come_first() {
        let new = [file("b/x", 50_000, 1), file("y", 100, 2), file("z", 0, 3)];
        let surplus = [
            surplus("other", 50_000, 9),
            surplus("a/x", 50_000, 9),
            surplus("q", 50_000, 1),
            surplus("small", 100, 9),
            surplus("empty", 0, 3),
        ];
        let new: Vec<_> = new.iter().collect();
        let candidates = rename_candidates(&new, &surplus);
        assert_eq!(candidates, RenameCandidates::from([(0, vec![2, 1, 0])]));
    }

    #[test]
    fn a_surplus_file_that_several_new_ones_equal_is_moved_by_the_last_of_them() {
        let digest = |content: &str| Some(Digest::compute(Algorithm::Blake3, content.as_bytes()));
        let candidates =
            RenameCandidates::from([(0, vec![0, 1]), (1, vec![0]), (2, vec![1]), (3, vec![0])]);
        let new = [digest("a"), digest("a"), digest("b"), None];
        let surplus = [digest("a"), digest("c")];
        let renames = match_renames(&candidates, |index| new[index], |index| surplus[index]);
        let expected = [(0, 0, false), (1, 0, true)];
        let renames: Vec<_> = renames
            .iter()
            .map(|rename| (rename.new, rename.surplus, rename.is_last_use))
            .collect();
        assert_eq!(renames, expected);
    }
}
