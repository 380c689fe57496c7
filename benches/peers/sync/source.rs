//! The source of a synchronisation, and its edits.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::PeersResult;
use crate::options::BenchOptions;
use crate::sync::rows::{SyncLoad, SyncWork};

const SMALL: usize = 4096;
const PIECE: usize = 1 << 20;

/// Files that [`SyncWork::Changed`] changes.
const CHANGED: u32 = 100;

/// Modification times of rounds differ by more than the resolution of any peer.
const BETWEEN_ROUNDS: Duration = Duration::from_secs(10);

/// The directory that is synchronised to everybody's destination.
pub(crate) struct SyncSource {
    directory: PathBuf,
    /// Small files; 0 if there is a large one.
    files: u32,
    /// The row that edits it, since no two edits may be the same.
    row: &'static str,
    /// The number of the next edit.
    round: u32,
}

impl SyncSource {
    /// Makes the directory, unless it is there.
    pub(crate) fn open(
        directory: PathBuf,
        (row, load): (&'static str, SyncLoad),
        options: &BenchOptions,
    ) -> io::Result<Self> {
        let files = load.files(options).unwrap_or(0);
        let source = Self {
            directory,
            files,
            row,
            round: 0,
        };
        if !source.directory.exists() {
            let mut random = random("source", load.name(), 0);
            for number in 0..files {
                let path = source.small(number);
                fs::create_dir_all(path.parent().unwrap_or(&source.directory))?;
                fs::write(path, bytes(&mut random, SMALL))?;
            }
            if load == SyncLoad::Large {
                fs::create_dir_all(&source.directory)?;
                let mut file = File::create(source.directory.join("large"))?;
                for _ in 0..options.size.0 / PIECE as u64 {
                    file.write_all(&bytes(&mut random, PIECE))?;
                }
            }
        }
        Ok(source)
    }

    pub(crate) fn directory(&self) -> &Path {
        &self.directory
    }

    fn small(&self, number: u32) -> PathBuf {
        self.directory
            .join(format!("{:04}/{:02}", number / 100, number % 100))
    }

    /// The large file, under whatever name it has.
    fn large(&self) -> io::Result<PathBuf> {
        let first = fs::read_dir(&self.directory)?.next();
        Ok(first.ok_or(io::ErrorKind::NotFound)??.path())
    }

    /// Makes the changes of a row.
    pub(crate) fn edit(&mut self, work: SyncWork) -> io::Result<()> {
        self.round += 1;
        let mut random = random("edit", self.row, self.round);
        match work {
            SyncWork::First | SyncWork::Unchanged => Ok(()),
            SyncWork::Changed => {
                for _ in 0..CHANGED {
                    let path = self.small(number(&mut random) % self.files);
                    fs::write(&path, bytes(&mut random, SMALL))?;
                    self.touch(&path)?;
                }
                Ok(())
            }
            SyncWork::Scattered => {
                let path = self.large()?;
                let file = File::options().write(true).open(&path)?;
                let places = file.metadata()?.len() / SMALL as u64;
                for _ in 0..places / 100 {
                    let place = u64::from(number(&mut random)) % places;
                    file.write_all_at(&bytes(&mut random, SMALL), place * SMALL as u64)?;
                }
                self.touch(&path)
            }
            SyncWork::Inserted => {
                let path = self.large()?;
                let new = self.directory.with_extension("new");
                let mut file = File::create(&new)?;
                file.write_all(&bytes(&mut random, PIECE))?;
                io::copy(&mut File::open(&path)?, &mut file)?;
                fs::rename(new, &path)?;
                self.touch(&path)
            }
            SyncWork::Renamed => {
                let to = self.directory.join(format!("{}-{}", self.row, self.round));
                fs::rename(self.large()?, to)
            }
        }
    }

    /// Sets a time that no earlier edit has set.
    fn touch(&self, path: &Path) -> io::Result<()> {
        let time = SystemTime::now() + BETWEEN_ROUNDS * self.round;
        File::options().write(true).open(path)?.set_modified(time)
    }
}

fn random(purpose: &str, name: &str, round: u32) -> blake3::OutputReader {
    let mut hasher = blake3::Hasher::new();
    hasher.update(purpose.as_bytes()).update(name.as_bytes());
    hasher.update(&round.to_le_bytes()).finalize_xof()
}

fn bytes(random: &mut blake3::OutputReader, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    random.fill(&mut bytes);
    bytes
}

fn number(random: &mut blake3::OutputReader) -> u32 {
    let mut bytes = [0; 4];
    random.fill(&mut bytes);
    u32::from_le_bytes(bytes)
}

/// Whether two directories have the same files.
///
/// # Errors
/// Which file is missing, too much or different.
pub(crate) fn compare(wanted: &Path, got: &Path) -> PeersResult<()> {
    let names = |directory: &Path| -> io::Result<Vec<_>> {
        let entries = fs::read_dir(directory)?.map(|entry| Ok(entry?.file_name()));
        let mut names = entries.collect::<io::Result<Vec<_>>>()?;
        names.sort();
        Ok(names)
    };
    let wanted_names = names(wanted)?;
    if wanted_names != names(got).map_err(|error| format!("{}: {error}", got.display()))? {
        return Err(format!("{} has other entries than the source", got.display()).into());
    }
    for name in wanted_names {
        let (wanted, got) = (wanted.join(&name), got.join(&name));
        if wanted.is_dir() {
            compare(&wanted, &got)?;
        } else if !are_equal(&wanted, &got)? {
            return Err(format!("{} is not what was sent", got.display()).into());
        }
    }
    Ok(())
}

fn are_equal(one: &Path, other: &Path) -> io::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut one, mut other) = (BufReader::new(one), BufReader::new(other));
    let (mut left, mut right) = (Vec::new(), Vec::new());
    loop {
        left.clear();
        right.clear();
        one.by_ref().take(PIECE as u64).read_to_end(&mut left)?;
        other.by_ref().take(PIECE as u64).read_to_end(&mut right)?;
        if left != right {
            return Ok(false);
        }
        if left.is_empty() {
            return Ok(true);
        }
    }
}
