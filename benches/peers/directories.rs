//! Where it all happens: directories that are gone afterwards, with random files in them.

use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::PeersResult;
use crate::rows::{BenchLoad, Extent};

const SMALL: usize = 4096;
const PIECE: usize = 1 << 20;

/// A temporary directory for servers and clients.
///
/// `files` is what they serve and upload, `incoming` is where uploads arrive (except haul's),
/// `got` is where downloads arrive, and every peer keeps its configuration in a directory of its own.
pub(crate) struct BenchDirectories {
    root: TempDir,
}

impl BenchDirectories {
    pub(crate) fn new(within: &Path) -> PeersResult<Self> {
        let root = tempfile::Builder::new()
            .prefix("haul-peers-")
            .tempdir_in(within)?;
        for name in ["files", "incoming", "got"] {
            fs::create_dir(root.path().join(name))?;
        }
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        self.root.path()
    }

    pub(crate) fn source(&self, item: BenchLoad) -> PathBuf {
        self.root().join("files").join(item.name())
    }

    /// The directory of a synchronisation's source.
    pub(crate) fn source_named(&self, name: &str) -> PathBuf {
        self.root().join("files").join(name)
    }

    pub(crate) fn incoming(&self, item: BenchLoad) -> PathBuf {
        self.root().join("incoming").join(item.name())
    }

    pub(crate) fn target(&self, item: BenchLoad) -> PathBuf {
        self.root().join("got").join(item.name())
    }

    /// A directory for one peer.
    pub(crate) fn room(&self, peer: &str) -> PeersResult<PathBuf> {
        let room = self.root().join(peer);
        fs::create_dir_all(&room)?;
        Ok(room)
    }

    /// Makes an item of bytes that nothing can compress, unless it is there.
    pub(crate) fn fill(&self, item: BenchLoad, extent: Extent) -> io::Result<()> {
        let path = self.source(item);
        if path.exists() {
            return Ok(());
        }
        let mut random = blake3::Hasher::new()
            .update(item.name().as_bytes())
            .finalize_xof();
        match extent {
            Extent::File(size) => {
                let mut file = File::create(&path)?;
                let mut piece = vec![0; PIECE];
                let mut left = size;
                while left > 0 {
                    let now = left.min(PIECE as u64);
                    let piece = &mut piece[..usize::try_from(now).map_err(io::Error::other)?];
                    random.fill(piece);
                    file.write_all(piece)?;
                    left -= now;
                }
            }
            Extent::Tree(_) => {
                let mut small = [0; SMALL];
                for name in extent.paths() {
                    let file = path.join(name);
                    fs::create_dir_all(file.parent().unwrap_or(&path))?;
                    random.fill(&mut small);
                    fs::write(file, small)?;
                }
            }
        }
        Ok(())
    }
}

/// Removes a file or a tree, if it is there.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Whether an item has arrived, byte by byte.
///
/// # Errors
/// Which file is missing or differs.
pub(crate) fn compare(extent: Extent, wanted: &Path, got: &Path) -> PeersResult<()> {
    match extent {
        Extent::File(_) => compare_files(wanted, got),
        Extent::Tree(_) => extent
            .paths()
            .try_for_each(|name| compare_files(&wanted.join(&name), &got.join(&name))),
    }
}

fn compare_files(wanted: &Path, got: &Path) -> PeersResult<()> {
    let differs = || format!("{} is not what was sent", got.display());
    let open =
        |path: &Path| File::open(path).map_err(|error| format!("{}: {error}", path.display()));
    let (left, right) = (open(wanted)?, open(got)?);
    let mut size = left.metadata()?.len();
    if size != right.metadata()?.len() {
        return Err(differs().into());
    }
    let (mut left, mut right) = (BufReader::new(left), BufReader::new(right));
    let (mut one, mut other) = (vec![0; PIECE], vec![0; PIECE]);
    while size > 0 {
        let now = usize::try_from(size.min(PIECE as u64))?;
        left.read_exact(&mut one[..now])?;
        right.read_exact(&mut other[..now])?;
        if one[..now] != other[..now] {
            return Err(differs().into());
        }
        size -= now as u64;
    }
    Ok(())
}

/// What is there of an item: bytes of a file, files of a tree.
pub(crate) fn arrived(extent: Extent, path: &Path) -> u64 {
    match extent {
        Extent::File(_) => fs::metadata(path).map_or(0, |meta| meta.len()),
        Extent::Tree(_) => extent
            .paths()
            .filter(|name| path.join(name).exists())
            .count() as u64,
    }
}
