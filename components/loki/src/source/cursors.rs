//! Where sources that read no files have come to, kept over restarts.
//!
//! Cursors are lines of one file, `cursors`, in the component's folder: the CRC-32C of the rest in hexadecimal, the key and
//! the cursor, with tabs between; in the latter two `\`, tabs, line feeds and carriage returns are escaped. The file is written anew when something changed, to
//! another name first. What the reference has in its own `positions.yml` in the same folder is taken over when there is no such
//! file yet; that file is never written.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::{fs, io};

use corten_files::positions::{REFERENCE_FILE_NAME, parse_yaml};

/// The name of the file in the folder of its component.
const FILE_NAME: &str = "cursors";

/// The largest file that is read.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// Cursors by key.
#[derive(Clone, Debug, Default)]
pub(super) struct Cursors {
    folder: PathBuf,
    map: BTreeMap<String, String>,
    changed: bool,
    /// Lines that could not be read.
    pub(super) damaged: usize,
}

/// The key of the reference's file, and so of ours: a name, and the labels that go with it, if any.
pub(super) fn key(name: &str, labels: &str) -> String {
    if labels.is_empty() { format!("cursor-{name}") } else { format!("cursor-{name} {labels}") }
}

impl Cursors {
    /// Reads the cursors of a component from its folder; the first time those of the reference.
    ///
    /// # Errors
    ///
    /// A file that cannot be read, and one of the reference that is no YAML.
    pub(super) fn load(folder: &Path) -> Result<Self, String> {
        let mut cursors = Cursors { folder: folder.to_owned(), ..Self::default() };
        if let Some(text) = read(&folder.join(FILE_NAME))? {
            cursors.parse(&text);
            return Ok(cursors);
        }
        let reference = folder.join(REFERENCE_FILE_NAME);
        if let Some(content) = read(&reference)? {
            let entries = parse_yaml(&content)
                .map_err(|error| format!("invalid yaml positions file [{}]: {error}", reference.display()))?;
            for (name, labels, cursor) in entries {
                if let Some(name) = name.strip_prefix("cursor-") {
                    cursors.set(&key(name, &labels), cursor);
                }
            }
        }
        Ok(cursors)
    }

    /// Takes over the cursor of a job from a positions file of the reference's predecessor, if nothing is known yet.
    ///
    /// # Errors
    ///
    /// A file that cannot be read.
    pub(super) fn import(&mut self, file: &Path, name: &str, as_key: &str) -> Result<bool, String> {
        if !self.map.is_empty() {
            return Ok(false);
        }
        let Some(content) = read(file)? else { return Ok(false) };
        // As with the reference, what is no positions file counts as none.
        let entries = parse_yaml(&content).unwrap_or_default();
        let found = entries.into_iter().find(|(path, ..)| *path == format!("cursor-{name}"));
        let is_there = found.is_some();
        if let Some((_, _, cursor)) = found {
            self.set(as_key, cursor);
        }
        Ok(is_there)
    }

    fn parse(&mut self, text: &[u8]) {
        let end = text.iter().rposition(|&byte| byte == b'\n').map_or(0, |at| at + 1);
        for line in text[..end].split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
            match parse_line(line) {
                Some((key, cursor)) => drop(self.map.insert(key, cursor)),
                None => self.damaged += 1,
            }
        }
    }

    /// The cursor of a key.
    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.map.get(key).map(String::as_str)
    }

    /// Notes a cursor.
    pub(super) fn set(&mut self, key: &str, cursor: String) {
        if self.map.get(key) != Some(&cursor) {
            self.map.insert(key.to_owned(), cursor);
            self.changed = true;
        }
    }

    /// Forgets a cursor.
    pub(super) fn remove(&mut self, key: &str) {
        self.changed |= self.map.remove(key).is_some();
    }

    /// Whether there is something to save.
    pub(super) fn changed(&self) -> bool {
        self.changed
    }

    /// Takes what is to be saved, to save it elsewhere.
    pub(super) fn take_changes(&mut self) -> Save {
        self.changed = false;
        let mut text = String::new();
        for (key, cursor) in &self.map {
            let rest = format!("{}\t{}", escape(key), escape(cursor));
            // Writing to a string cannot fail.
            let _ = writeln!(text, "{:08x}\t{rest}", crc32c::crc32c(rest.as_bytes()));
        }
        Save { folder: self.folder.clone(), text }
    }

    /// What was to be saved was not.
    pub(super) fn not_saved(&mut self) {
        self.changed = true;
    }
}

fn parse_line(line: &[u8]) -> Option<(String, String)> {
    let (sum, rest) = std::str::from_utf8(line).ok()?.split_once('\t')?;
    if sum.len() != 8 || u32::from_str_radix(sum, 16).ok()? != crc32c::crc32c(rest.as_bytes()) {
        return None;
    }
    let (key, cursor) = rest.split_once('\t')?;
    Some((unescape(key), unescape(cursor)))
}

fn escape(text: &str) -> String {
    text.replace('\\', "\\\\").replace('\t', "\\t").replace('\n', "\\n").replace('\r', "\\r")
}

fn unescape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('t') => '\t',
                Some('n') => '\n',
                Some('r') => '\r',
                other => other.unwrap_or('\\'),
            },
            c => c,
        });
    }
    out
}

/// The content of a file; nothing if there is none.
fn read(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let told = |error: io::Error| format!("cannot read {}: {error}", path.display());
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(told(error)),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => Err(format!("{} is too large", path.display())),
        Ok(_) => fs::read(path).map(Some).map_err(told),
    }
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Save {
    folder: PathBuf,
    text: String,
}

impl Save {
    /// Writes it.
    ///
    /// # Errors
    ///
    /// If it cannot be written; the cursors that were saved before are still there.
    pub(super) fn write(&self) -> Result<(), String> {
        let path = self.folder.join(FILE_NAME);
        let new = self.folder.join(format!("{FILE_NAME}.new"));
        let all = || -> io::Result<()> {
            fs::create_dir_all(&self.folder)?;
            let mut file = fs::File::create(&new)?;
            file.write_all(self.text.as_bytes())?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        all().map_err(|error| format!("cannot write {}: {error}", path.display()))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cursors_are_read_as_they_were_saved_and_damaged_lines_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let mut cursors = Cursors::load(dir.path()).unwrap();
        cursors.set(&key("a", ""), "s=1;i=2".to_owned());
        cursors.set(&key("b", r#"{x="y \"z\" \\"}"#), "17 1:2".to_owned());
        cursors.set("gone", "1".to_owned());
        cursors.remove("gone");
        assert!(cursors.changed());
        cursors.take_changes().write().unwrap();
        assert!(!cursors.changed());
        let read = Cursors::load(dir.path()).unwrap();
        assert_eq!((read.map, read.damaged), (cursors.map.clone(), 0));
        let path = dir.path().join(FILE_NAME);
        let text = fs::read_to_string(&path).unwrap();
        fs::write(&path, text.replace("i=2", "i=3") + "half a line").unwrap();
        let read = Cursors::load(dir.path()).unwrap();
        assert_eq!((read.map.len(), read.damaged), (1, 1));
    }

    #[test]
    fn cursors_of_the_reference_are_taken_over_once() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join(REFERENCE_FILE_NAME);
        let text = "positions:\n  ? path: cursor-loki.source.journal.a\n    labels: \"\"\n  : s=1;i=2\n  ? path: /var/log/a\n    \
                    labels: '{}'\n  : \"17\"\n  ? path: cursor-c0ffee\n    labels: '{a=\"b\"}'\n  : \"1700000000\"\n";
        fs::write(&file, text).unwrap();
        let cursors = Cursors::load(dir.path()).unwrap();
        assert_eq!(cursors.get(&key("loki.source.journal.a", "")), Some("s=1;i=2"));
        assert_eq!(cursors.get(&key("c0ffee", "{a=\"b\"}")), Some("1700000000"));
        assert_eq!(cursors.map.len(), 2);
        fs::write(&file, "positions: [").unwrap();
        assert!(Cursors::load(dir.path()).unwrap_err().starts_with("invalid yaml positions file ["));
    }

    #[test]
    fn a_job_of_the_predecessor_is_taken_over_when_nothing_is_known() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("promtail.yml");
        fs::write(&file, "positions:\n  cursor-journal: s=1;i=2\n  /var/log/a: \"3\"\n").unwrap();
        let mut cursors = Cursors::load(dir.path()).unwrap();
        assert_eq!(cursors.import(&file, "other", "cursor-x"), Ok(false));
        assert_eq!(cursors.import(&file, "journal", "cursor-x"), Ok(true));
        assert_eq!(cursors.get("cursor-x"), Some("s=1;i=2"));
        assert_eq!(cursors.import(&file, "journal", "cursor-y"), Ok(false));
        let mut none = Cursors::default();
        assert_eq!(none.import(&dir.path().join("none"), "journal", "cursor-x"), Ok(false));
        assert!(none.import(dir.path(), "journal", "cursor-x").is_err());
    }

    proptest! {
        #[test]
        fn no_content_makes_it_panic(content in proptest::collection::vec(any::<u8>(), 0..200), line in "[0-9a-f]{8} .{0,20}") {
            Cursors::default().parse(&content);
            let _ = parse_line(line.as_bytes());
        }

        #[test]
        fn any_key_is_read_as_it_was_written(key in "(?s).{0,20}", cursor in "(?s).{0,20}") {
            let mut cursors = Cursors::default();
            cursors.set(&key, cursor.clone());
            let mut read = Cursors::default();
            read.parse(cursors.take_changes().text.as_bytes());
            prop_assert_eq!((read.get(&key), read.damaged), (Some(&*cursor), 0));
        }
    }
}
