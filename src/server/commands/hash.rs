//! `hash`: the digest of a file. The server reads the file only if no digest is kept with it.

use crate::protocol::{Hash, HashReply};
use crate::server::commands::Command;
use crate::server::disk::OpenedFile;
use crate::server::error::CommandError;
use crate::server::session::member::Member;
use crate::server::transfer::hashing;

impl Command for Hash {
    async fn apply(self, member: &mut Member) -> Result<HashReply, CommandError> {
        let path = member.resolve(&self.path)?;
        let algorithm = self.digest.unwrap_or_default();
        let waiting = member
            .peer_left
            .run_until_cancelled(member.disk.acquire_file());
        let descriptors = waiting.await.ok_or(CommandError::Cancelled)??;
        let disk = member.disk.clone();
        let (file, kept, verifier) = member
            .with_view(move |view| {
                let file = view.open(&path, self.version.as_deref())?;
                let kept = file.kept_digest(algorithm);
                let verifier = file.verifier(algorithm);
                Ok((OpenedFile::new(file, disk, descriptors), kept, verifier))
            })
            .await?;
        let size = file.info().size;
        if let Some(digest) = kept {
            return Ok(HashReply { digest, size });
        }
        // A session hashes one file at a time; sessions share the digest permits.
        let hashing_permit = member.hash_permit.clone();
        let waiting = member
            .peer_left
            .run_until_cancelled(hashing_permit.acquire());
        let _permit = waiting.await.ok_or(CommandError::Cancelled)?;
        let verifier =
            hashing::hash(&member.disk, &member.peer_left, &file, verifier, 0..size).await?;
        let shared = file.share();
        let digest = member.disk.run(move || verifier.finish(&shared)).await?;
        Ok(HashReply { digest, size })
    }
}
