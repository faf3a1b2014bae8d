//! The file of one reader's cursor.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::format::{self, CURSOR_FILE_LEN, CURSOR_NAME_LEN, CURSOR_SLOT_LEN, Slot};

/// What was found in a cursor's file.
pub(crate) struct Loaded {
    /// The reader's name; absent where the name block is damaged.
    pub(crate) name: Option<String>,
    /// Absent where no slot is whole.
    pub(crate) slot: Option<Slot>,
    pub(crate) file: CursorFile,
}

/// An open cursor file, and the buffer for its slots.
#[derive(Debug)]
pub(crate) struct CursorFile {
    file: Arc<File>,
    sequence: u64,
    buffer: Vec<u8>,
}

impl CursorFile {
    pub(crate) fn path(dir: &Path, stem: &str) -> PathBuf {
        dir.join(format!("{stem}.cur"))
    }

    /// Makes the file whole under another name first, so that a cursor without a slot is never found.
    pub(crate) fn create(dir: &Path, stem: &str, name: &str, slot: &Slot) -> io::Result<CursorFile> {
        let mut bytes = format::encode_cursor_name(name);
        bytes.resize(CURSOR_NAME_LEN, 0);
        let mut buffer = Vec::new();
        format::encode_slot(&mut buffer, &Slot { sequence: 2, ..slot.clone() });
        bytes.extend_from_slice(&buffer);
        bytes.resize(CURSOR_FILE_LEN, 0);
        let path = dir.join(format!("{stem}.cur.new"));
        let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
        file.write_all(&bytes)?;
        std::fs::rename(&path, Self::path(dir, stem))?;
        Ok(CursorFile { file: Arc::new(file), sequence: 2, buffer })
    }

    pub(crate) fn load(path: &Path) -> io::Result<Loaded> {
        let mut file = OpenOptions::new().read(true).write(true).open(path)?;
        let mut bytes = Vec::with_capacity(CURSOR_FILE_LEN);
        (&mut file).take(CURSOR_FILE_LEN as u64).read_to_end(&mut bytes)?;
        let slot = format::decode_slots(&bytes);
        let name = format::decode_cursor_name(&bytes);
        let sequence = slot.as_ref().map_or(0, |slot| slot.sequence);
        Ok(Loaded { name, slot, file: CursorFile { file: Arc::new(file), sequence, buffer: Vec::new() } })
    }

    /// Writes the slot that does not count now; its sequence number is set here.
    pub(crate) fn write(&mut self, mut slot: Slot) -> io::Result<()> {
        slot.sequence = self.sequence.wrapping_add(1);
        format::encode_slot(&mut self.buffer, &slot);
        let at = CURSOR_NAME_LEN + (slot.sequence % 2) as usize * CURSOR_SLOT_LEN;
        let mut file = &*self.file;
        file.seek(SeekFrom::Start(at as u64))?;
        file.write_all(&self.buffer)?;
        self.sequence = slot.sequence;
        Ok(())
    }

    pub(crate) fn file(&self) -> Arc<File> {
        self.file.clone()
    }
}
