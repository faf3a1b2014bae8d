//! Other names that files get when they are rotated.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::handles::open_plain;
use crate::identity::{FileFacts, FileId};

/// How often a folder is listed while files come, go or get other names in it.
const LISTS_MAX: usize = 4;
/// How many files of a folder are looked at.
const FILES_MAX: usize = 100_000;
/// The longest stamp that a rotation adds to a name.
const STAMP_BYTES_MAX: usize = 40;
/// How many digits a date has at least.
const DATE_DIGITS_MIN: usize = 6;

/// A file beside another.
#[derive(Clone, Debug)]
pub(crate) struct Sibling {
    pub(crate) path: PathBuf,
    pub(crate) facts: FileFacts,
}

impl Sibling {
    /// Opens the file, as it is now. Not found if the name went to another one.
    pub(crate) fn open(&self) -> io::Result<(File, FileFacts)> {
        let file = open_plain(&self.path)?;
        let facts = FileFacts::of(&file.metadata()?);
        if facts.id == self.facts.id { Ok((file, facts)) } else { Err(io::ErrorKind::NotFound.into()) }
    }
}

/// The names that a file may have had before it was rotated: `app.log` for `app.log.1`, `app-20240229.log` and
/// `app.log.2.gz`.
pub(crate) fn bases(name: &str) -> Vec<String> {
    let name = [".gz", ".z", ".bz2"].iter().find_map(|end| name.strip_suffix(end)).unwrap_or(name);
    let mut found: Vec<String> = without_stamp(name).map(str::to_owned).collect();
    if let Some((stem, extension)) = name.rsplit_once('.')
        && !is_stamp(extension)
    {
        // A number after a dash may as well be that of another program's file.
        let is_meant =
            |base: &&str| stem[base.len()..].starts_with('.') || digits(&stem[base.len()..]) >= DATE_DIGITS_MIN;
        found.extend(without_stamp(stem).filter(is_meant).map(|stem| format!("{stem}.{extension}")));
    }
    found
}

fn digits(text: &str) -> usize {
    text.bytes().filter(u8::is_ascii_digit).count()
}

fn without_stamp(name: &str) -> impl Iterator<Item = &str> {
    let separators = name.char_indices().filter(|(_, c)| matches!(c, '.' | '-' | '_' | '~'));
    separators.filter(|(at, _)| *at > 0 && is_stamp(&name[at + 1..])).map(|(at, _)| &name[..at])
}

/// Whether it is a number, a date or a word that rotations add to a name.
fn is_stamp(text: &str) -> bool {
    let is_of_date = |b: u8| b.is_ascii_digit() || matches!(b, b'T' | b'Z' | b':' | b'+' | b'.' | b'_' | b'-');
    let is_date = text.starts_with(|c: char| c.is_ascii_digit()) && text.bytes().all(is_of_date);
    (is_date && text.len() <= STAMP_BYTES_MAX) || matches!(text, "old" | "bak" | "prev")
}

/// The other plain files of a file's folder that are chosen by their names. What cannot be looked at is left out.
pub(crate) fn siblings(path: &Path, chosen: impl Fn(&str) -> bool) -> Vec<Sibling> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let changed = || std::fs::metadata(folder).map(|metadata| FileFacts::of(&metadata).modified_ns).ok();
    let mut before = changed();
    for _ in 1..LISTS_MAX {
        let found = list(path, folder, &chosen);
        // A file that gets another name while a folder is listed may be in no place of the list.
        let after = changed();
        if after == before {
            return found;
        }
        before = after;
    }
    list(path, folder, &chosen)
}

fn list(path: &Path, folder: &Path, chosen: impl Fn(&str) -> bool) -> Vec<Sibling> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let own = path.file_name();
    let mut found = Vec::new();
    for entry in entries.take(FILES_MAX).flatten() {
        let name = entry.file_name();
        if Some(name.as_os_str()) == own || !name.to_str().is_some_and(&chosen) {
            continue;
        }
        // Not through links: those are other names of files that are elsewhere.
        if let Ok(metadata) = entry.metadata()
            && metadata.is_file()
        {
            found.push(Sibling { path: entry.path(), facts: FileFacts::of(&metadata) });
        }
    }
    found
}

/// Whether a name leads to a file now.
pub(crate) fn leads_to(name: &str, id: FileId) -> bool {
    std::fs::metadata(name).is_ok_and(|metadata| FileFacts::of(&metadata).id == id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_got_another_name_is_not_taken_for_the_one_that_has_it_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("a.1"), "1").unwrap();
        let found = siblings(&path("a"), |_| true);
        assert_eq!(found.len(), 1);
        std::fs::write(path("a.1"), "1 and more").unwrap();
        assert_eq!(found[0].open().unwrap().1.size, 10);
        std::fs::rename(path("a.1"), path("a.2")).unwrap();
        assert_eq!(found[0].open().unwrap_err().kind(), io::ErrorKind::NotFound);
        std::fs::write(path("a.1"), "2").unwrap();
        assert_eq!(found[0].open().unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn rotated_names_are_told_from_others() {
        for (name, base, is_base) in [
            ("app.log.1", "app.log", true),
            ("app.log.12.gz", "app.log", true),
            ("app.log-20240229", "app.log", true),
            ("app.log-20240229.gz", "app.log", true),
            ("app.log.2024-02-29T12:00:00Z", "app.log", true),
            ("app.log.2024-02-29.1", "app.log", true),
            ("app-20240229.log", "app.log", true),
            ("app-2024-02-29.3.log", "app.log", true),
            ("app.1.log", "app.log", true),
            ("app-1.log", "app.log", false),
            ("app.log.old", "app.log", true),
            ("app.log~1", "app.log", true),
            ("app.log.err", "app.log", false),
            ("app.log-errors", "app.log", false),
            ("app.log1", "app.log", false),
            ("app-errors.log", "app.log", false),
            ("app.log", "app.log", false),
            ("other.log.1", "app.log", false),
            (".1", "", false),
        ] {
            assert_eq!(bases(name).iter().any(|found| found == base), is_base, "{name}");
        }
    }
}
