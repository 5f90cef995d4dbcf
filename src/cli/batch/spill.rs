//! Output that is shown later: in memory as long as it is little, then in one file that has no name.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use sha2::{Digest as _, Sha256};

/// Bytes of one host's output that are held in memory.
const HELD: usize = 16 * 1024;
/// Bytes that are read back at once.
const READ: usize = 64 * 1024;

/// What every host has written so far and nobody has seen.
#[derive(Default)]
pub(super) struct Spill {
    file: Option<File>,
    /// The file's length.
    end: u64,
    open: HashMap<usize, Block>,
}

/// One host's output.
#[derive(Default)]
pub(super) struct Block {
    /// Places and lengths in the file, in order.
    chunks: Vec<(u64, usize)>,
    /// What comes behind them.
    held: Vec<u8>,
    digest: Sha256,
}

impl Spill {
    /// Adds to a host's output.
    pub(super) fn push(&mut self, host: usize, bytes: &[u8]) -> io::Result<()> {
        let block = self.open.entry(host).or_default();
        block.digest.update(bytes);
        block.held.extend_from_slice(bytes);
        if block.held.len() > HELD {
            let held = std::mem::take(&mut block.held);
            let chunk = self.write(&held)?;
            self.open.entry(host).or_default().chunks.push(chunk);
        }
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<(u64, usize)> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile()?),
        };
        file.write_all_at(bytes, self.end)?;
        let chunk = (self.end, bytes.len());
        self.end += bytes.len() as u64;
        Ok(chunk)
    }

    /// All that a host wrote.
    pub(super) fn take(&mut self, host: usize) -> Block {
        self.open.remove(&host).unwrap_or_default()
    }

    /// Puts what is held of a block into the file, so that many of them cost little.
    pub(super) fn settle(&mut self, block: &mut Block) -> io::Result<()> {
        if !block.held.is_empty() {
            let held = std::mem::take(&mut block.held);
            block.chunks.push(self.write(&held)?);
        }
        Ok(())
    }

    /// Hands on a block, piece by piece.
    pub(super) fn read(
        &self,
        block: &Block,
        mut piece: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        for (start, length) in &block.chunks {
            let mut at = *start;
            let end = start + *length as u64;
            while let Some(file) = self.file.as_ref().filter(|_| at < end) {
                let wanted = usize::try_from(end - at).map_or(READ, |left| left.min(READ));
                let mut bytes = vec![0; wanted];
                file.read_exact_at(&mut bytes, at)?;
                piece(&bytes)?;
                at += wanted as u64;
            }
        }
        piece(&block.held)
    }
}

impl Block {
    /// Whether nothing was written.
    pub(super) fn is_empty(&self) -> bool {
        self.chunks.is_empty() && self.held.is_empty()
    }

    /// The digest of all of it.
    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest.clone().finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_come_back_as_they_were_and_apart() {
        let mut spill = Spill::default();
        let bytes = |host: usize| (0..100_000).map(|n| (n * 7 + host) as u8).collect::<Vec<_>>();
        for at in (0..100_000).step_by(1000) {
            for host in 0..3 {
                spill.push(host, &bytes(host)[at..at + 1000]).unwrap();
            }
        }
        for host in 0..3 {
            let mut block = spill.take(host);
            spill.settle(&mut block).unwrap();
            assert!(block.held.is_empty());
            let mut all = Vec::new();
            spill
                .read(&block, |piece| {
                    all.extend_from_slice(piece);
                    Ok(())
                })
                .unwrap();
            assert_eq!(all, bytes(host));
            assert_eq!(block.digest(), <[u8; 32]>::from(Sha256::digest(&all)));
        }
    }

    #[test]
    fn little_needs_no_file() {
        let mut spill = Spill::default();
        spill.push(0, &[1; HELD]).unwrap();
        assert!(spill.file.is_none());
        spill.push(0, &[1]).unwrap();
        assert!(spill.file.is_some() && spill.open[&0].held.is_empty());
    }
}
