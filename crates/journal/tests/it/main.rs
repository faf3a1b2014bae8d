//! Files that systemd 252 wrote, beside what its `journalctl` exports of them.
//!
//! `tests/data` holds journal files of 300 entries over three boots (`systemd-journal-remote`, from an export of random text), and
//! `journalctl -o export` of each. Among the entries are empty and absent messages, binary ones, ones of several kilobytes, which
//! are compressed, and repeated fields.
//!
//! systemd 252 reads what older ones compressed with LZ4 and xz, but no longer writes it: `lz4-regular` and `xz-regular` are
//! `plain-regular`, with an id of their own, whose large fields liblz4 and liblzma compressed in place with systemd 219's
//! options. `journalctl` exports of them what it does of `plain-regular`.

use std::{
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use corten_journal::{Cursor, Entry, Fields, Journal, Matches, Start};
use flate2::read::GzDecoder;
use proptest::prelude::*;
use tempfile::TempDir;

const KINDS: [&str; 5] = ["plain-regular", "zstd-regular", "zstd-compact", "lz4-regular", "xz-regular"];

fn data(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(format!("{name}.gz"));
    let mut bytes = Vec::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_end(&mut bytes).unwrap();
    bytes
}

/// A folder with journal files, by name.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, bytes) in files {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    dir
}

fn open(dir: &TempDir) -> Journal {
    Journal::open(Some(dir.path()), Matches::default()).unwrap()
}

fn rest(journal: &mut Journal) -> Vec<Cursor> {
    let mut all = Vec::new();
    while let Some(entry) = journal.next_entry() {
        all.push(entry.cursor);
    }
    all
}

/// As `journalctl` prints an entry for export.
fn export(entry: &Entry<'_>, out: &mut Vec<u8>) {
    let Cursor { realtime_us, monotonic_us, boot, .. } = entry.cursor;
    write!(out, "__CURSOR={}\n__REALTIME_TIMESTAMP={realtime_us}\n", entry.cursor).unwrap();
    write!(out, "__MONOTONIC_TIMESTAMP={monotonic_us}\n_BOOT_ID={boot:032x}\n").unwrap();
    for (name, value) in entry.fields.iter().filter(|(name, _)| *name != "_BOOT_ID") {
        let printable = |text: &str| text.chars().all(|c| c == '\t' || !c.is_control());
        if std::str::from_utf8(value).is_ok_and(printable) {
            out.extend([name.as_bytes(), b"=", value, b"\n"].concat());
        } else {
            out.extend([name.as_bytes(), b"\n", &(value.len() as u64).to_le_bytes(), value, b"\n"].concat());
        }
    }
    out.push(b'\n');
}

#[test]
fn every_entry_is_exported_as_journalctl_does() {
    for kind in KINDS {
        let dir = folder(&[("a.journal", &data(&format!("{kind}.journal")))]);
        let (mut journal, mut text) = (open(&dir), Vec::new());
        while let Some(entry) = journal.next_entry() {
            export(&entry, &mut text);
        }
        let wanted = match kind {
            "lz4-regular" | "xz-regular" => data("plain-regular.export"),
            _ => data(&format!("{kind}.export")),
        };
        let same = text == wanted;
        let at = text.iter().zip(&wanted).position(|(a, b)| a != b);
        assert!(same, "{kind}: {} of {} bytes, differs at {at:?}", text.len(), wanted.len());
        assert_eq!(journal.damaged(), 0);
    }
}

#[test]
fn reading_goes_on_behind_any_entry_and_begins_at_any_time() {
    for kind in KINDS {
        let dir = folder(&[("a.journal", &data(&format!("{kind}.journal")))]);
        let mut journal = open(&dir);
        let all = rest(&mut journal);
        assert_eq!(all.len(), 300);
        for at in (0..300).step_by(7).chain([0, 298, 299]) {
            journal.seek(Start::After(all[at].to_string().parse().unwrap()));
            assert_eq!(rest(&mut journal), all[at + 1..], "{kind} {at}");
            journal.seek(Start::Realtime(all[at].realtime_us));
            assert_eq!(rest(&mut journal), all[at..], "{kind} {at}");
            journal.seek(Start::Realtime(all[at].realtime_us + 1));
            assert_eq!(rest(&mut journal), all[at + 1..], "{kind} {at}");
            // The entry itself is gone, and so is its sequence: the next one by time follows.
            let gone = Cursor { sequence: 1, number: 9_999, hash: u64::MAX, ..all[at] };
            journal.seek(Start::After(gone));
            assert_eq!(rest(&mut journal), all[at + 1..], "{kind} {at}");
        }
    }
}

#[test]
fn an_entry_that_is_in_two_files_comes_once() {
    let files = KINDS.map(|kind| data(&format!("{kind}.journal")));
    let dir = folder(&[("a.journal", &files[0]), ("b.journal", &files[1]), ("c.journal~", &files[2])]);
    fs::write(dir.path().join("notes.txt"), "not a journal").unwrap();
    let mut journal = open(&dir);
    assert_eq!(journal.files(), 3);
    let all = rest(&mut journal);
    assert_eq!(all.len(), 300);
    assert!(all.is_sorted_by_key(|cursor| cursor.realtime_us));
}

#[test]
fn matches_choose_entries() {
    let dir = folder(&[("a.journal", &data("zstd-compact.journal"))]);
    let count = |matches: &str| {
        let mut journal = Journal::open(Some(dir.path()), Matches::parse(matches).unwrap()).unwrap();
        rest(&mut journal).len()
    };
    let text = String::from_utf8_lossy(&data("zstd-compact.export")).into_owned();
    let lines = |wanted: &str| text.lines().filter(|line| *line == wanted).count();
    assert_eq!(count("PRIORITY=3"), lines("PRIORITY=3"));
    assert_eq!(count("PRIORITY=3 PRIORITY=4"), lines("PRIORITY=3") + lines("PRIORITY=4"));
    assert!(count("PRIORITY=3 _SYSTEMD_UNIT=nginx.service") < lines("PRIORITY=3"));
    assert_eq!(count("TAG=two"), lines("TAG=two"));
    assert_eq!(count("PRIORITY=9"), 0);
}

/// Where the header holds the number of entries, and the state.
const ENTRIES_AT: u64 = 152;
const STATE_AT: u64 = 16;

fn patch(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = File::options().write(true).open(path).unwrap();
    file.seek(SeekFrom::Start(at)).unwrap();
    file.write_all(bytes).unwrap();
}

#[test]
fn a_file_that_grows_is_followed_and_rotation_loses_and_repeats_nothing() {
    for kind in KINDS {
        let bytes = data(&format!("{kind}.journal"));
        let dir = folder(&[("system.journal", &bytes)]);
        let path = dir.path().join("system.journal");
        patch(&path, ENTRIES_AT, &100_u64.to_le_bytes());
        let mut journal = open(&dir);
        let mut all = rest(&mut journal);
        assert_eq!(all.len(), 100, "{kind}");
        journal.refresh();
        assert!(journal.next_entry().is_none());
        for end in [101_u64, 250] {
            patch(&path, ENTRIES_AT, &end.to_le_bytes());
            assert!(journal.refresh());
            all.extend(rest(&mut journal));
            assert_eq!(all.len() as u64, end, "{kind}");
        }
        // journald archives the file under another name, and begins a new one.
        patch(&path, ENTRIES_AT, &300_u64.to_le_bytes());
        patch(&path, STATE_AT, &[2]);
        fs::rename(&path, dir.path().join("system@1.journal")).unwrap();
        assert!(journal.refresh());
        all.extend(rest(&mut journal));
        assert_eq!(all.len(), 300, "{kind}");
        let other = KINDS.iter().find(|other| **other != kind).unwrap();
        fs::write(&path, data(&format!("{other}.journal"))).unwrap();
        assert!(journal.refresh());
        all.extend(rest(&mut journal));
        assert_eq!(all.len(), 600, "{kind}");
        assert_eq!(journal.files(), 1, "an archived file that was read is closed");
        // Vacuumed.
        fs::remove_file(dir.path().join("system@1.journal")).unwrap();
        journal.refresh();
        assert!(journal.next_entry().is_none());
        fs::remove_file(&path).unwrap();
        journal.refresh();
        assert!(journal.next_entry().is_none());
        assert_eq!(journal.files(), 0);
    }
}

#[test]
fn a_file_that_was_away_is_read_on_under_whatever_name() {
    for kind in KINDS {
        let dir = folder(&[("system.journal", &data(&format!("{kind}.journal")))]);
        let (path, away) = (dir.path().join("system.journal"), tempfile::tempdir().unwrap());
        let away = away.path().join("journal");
        for before in [0_u64, 1, 4, 5, 100, 300] {
            patch(&path, ENTRIES_AT, &before.to_le_bytes());
            let mut journal = open(&dir);
            assert_eq!(rest(&mut journal).len() as u64, before, "{kind}");
            // A listing may miss a file that is renamed meanwhile, or the folder is not mounted for a while.
            fs::rename(&path, &away).unwrap();
            for _ in 0..2 {
                journal.refresh();
                assert!(journal.next_entry().is_none());
                assert_eq!(journal.files(), 0);
            }
            patch(&away, ENTRIES_AT, &300_u64.to_le_bytes());
            fs::rename(&away, dir.path().join("system@1.journal")).unwrap();
            journal.refresh();
            assert_eq!(rest(&mut journal).len() as u64, 300 - before, "{kind}");
            assert_eq!((journal.files(), journal.damaged()), (1, 0));
            fs::rename(dir.path().join("system@1.journal"), &path).unwrap();
        }
    }
}

#[test]
fn a_file_that_is_none_is_told_of_once_and_read_when_it_is_one() {
    let dir = folder(&[("a.journal", b"LPKSHHRH and no more"), ("b.journal", &[])]);
    let mut journal = open(&dir);
    assert!(journal.next_entry().is_none());
    assert_eq!(journal.take_problems().len(), 2);
    journal.refresh();
    assert_eq!(journal.take_problems().len(), 0);
    fs::write(dir.path().join("a.journal"), data("zstd-regular.journal")).unwrap();
    journal.refresh();
    assert_eq!(rest(&mut journal).len(), 300);
    assert!(Journal::open(Some(&dir.path().join("none")), Matches::default()).is_err());
}

#[test]
fn machines_have_folders_of_their_own() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdee.space", "other"] {
        let folder: PathBuf = dir.path().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("system.journal"), data("plain-regular.journal")).unwrap();
    }
    let journal = open(&dir);
    assert_eq!(journal.files(), 1, "the same file twice is one, and other folders are not looked into");
}

/// Reads all of a file with some of its bytes changed. It must end, and within the entries that there can be.
fn read_damaged(bytes: &[u8]) -> usize {
    let dir = folder(&[("a.journal", bytes)]);
    let mut journal = open(&dir);
    let mut count = rest(&mut journal).len();
    journal.seek(Start::Realtime(1_787_306_403_000_000));
    count = count.max(rest(&mut journal).len());
    let _: Option<&Fields> = journal.next_entry().map(|entry| entry.fields);
    count
}

/// The part of a file that holds something.
fn used(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|&byte| byte != 0).unwrap_or(0)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn damage_never_makes_it_panic_or_run_on(
        kind in 0_usize..KINDS.len(),
        places in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..40),
        header in proptest::collection::vec((88_usize..208, any::<u8>()), 0..3),
        cut in proptest::option::of(any::<prop::sample::Index>()),
    ) {
        let mut bytes = data(&format!("{}.journal", KINDS[kind]));
        let used = used(&bytes);
        for (place, byte) in places {
            let at = place.index(used);
            // The signature is looked at elsewhere.
            if at >= 16 {
                bytes[at] = byte;
            }
        }
        for (at, byte) in header {
            bytes[at] = byte;
        }
        bytes.truncate(cut.map_or(used, |cut| cut.index(used)) + 1);
        prop_assert!(read_damaged(&bytes) <= 40_000);
    }
}
