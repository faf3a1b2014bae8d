use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::PathBuf;
use std::time::{Duration, UNIX_EPOCH};

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::identity::FileId;

/// A tail in a folder of its own, on a clock of its own.
struct Rig {
    dir: TempDir,
    positions: Mutex<Positions>,
    tails: Vec<Tail>,
    options: Options,
    buffers: Buffers,
    unpacking: Unpacking,
    now_ms: u64,
    /// Lines with the file that they came from, as (name, piece).
    got: Vec<String>,
}

impl Rig {
    fn new(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let buffers = Buffers::new(options.turn_bytes);
        let now_ms = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
        let (positions, _) = Positions::load(&dir.path().join("data"), None).unwrap();
        Rig {
            dir,
            positions: Mutex::new(positions),
            tails: vec![],
            options,
            buffers,
            unpacking: Unpacking::default(),
            now_ms,
            got: vec![],
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn follow(&mut self, name: &str) {
        let path = self.path(name).to_str().unwrap().to_owned();
        self.tails.push(Tail::new(path, vec!["{}".to_owned()]));
    }

    /// Appends, and says when on the rig's clock.
    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
        file.set_modified(UNIX_EPOCH + Duration::from_millis(self.now_ms)).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.path(from), self.path(to)).unwrap();
    }

    fn copy_and_truncate(&self, from: &str, to: &str) {
        fs::copy(self.path(from), self.path(to)).unwrap();
        let at = UNIX_EPOCH + Duration::from_millis(self.now_ms);
        OpenOptions::new().write(true).open(self.path(to)).unwrap().set_modified(at).unwrap();
        let file = OpenOptions::new().write(true).truncate(true).open(self.path(from)).unwrap();
        file.set_modified(at).unwrap();
    }

    /// Polls a tail once.
    fn step(&mut self, at: usize) -> Step {
        let names: BTreeSet<String> = self.tails.iter().map(|tail| tail.name().to_string()).collect();
        let world = World {
            now_ms: self.now_ms,
            positions: &self.positions,
            is_target: &|name| names.contains(name),
            options: &self.options,
            buffers: &self.buffers,
            unpacking: &self.unpacking,
        };
        self.tails[at].poll(&world).unwrap()
    }

    /// Polls until there is nothing new, and settles what was read.
    fn poll(&mut self) {
        self.poll_up_to(10_000);
    }

    fn poll_up_to(&mut self, mut steps: usize) {
        for at in 0..self.tails.len() {
            loop {
                if steps == 0 {
                    return;
                }
                steps -= 1;
                let before = (self.tails[at].is_open(), self.tails[at].counts());
                let step = self.step(at);
                // What happens to names is saved at once, as the component does.
                if before != (self.tails[at].is_open(), self.tails[at].counts()) {
                    self.save();
                }
                match step {
                    Step::Chunk(chunk) => {
                        let text = |line: &Line| String::from_utf8_lossy(line.of(&chunk.text)).into_owned();
                        self.got.extend(chunk.lines.iter().map(text));
                        self.tails[at].settle(chunk.piece, chunk.end);
                    }
                    Step::More => {}
                    Step::Quiet | Step::Missing | Step::Waits | Step::Skipped(_) => break,
                }
            }
        }
    }

    fn pass(&mut self, span_ms: u64) {
        self.now_ms += span_ms;
    }

    /// Long enough that files that lost their names are done with.
    fn pass_long(&mut self) {
        for _ in 0..4 {
            self.pass(LINGER_MS / 2);
            self.poll();
        }
    }

    /// Ends, and starts with what was saved. Without `clean` what was noted last counts.
    fn restart(&mut self, clean: bool) {
        let names: Vec<Arc<str>> = self.tails.iter().map(|tail| Arc::clone(tail.name())).collect();
        let mut positions = self.positions.lock();
        for tail in self.tails.drain(..) {
            if clean {
                tail.close(&mut positions, self.now_ms);
            }
        }
        if clean {
            positions.save().unwrap();
        }
        *positions = Positions::load(&self.dir.path().join("data"), None).unwrap().0;
        drop(positions);
        self.tails = names.into_iter().map(|name| Tail::new(name, vec!["{}".to_owned()])).collect();
    }

    fn save(&mut self) {
        let mut positions = self.positions.lock();
        self.tails.iter_mut().for_each(|tail| tail.note(&mut positions, self.now_ms));
        positions.save().unwrap();
    }

    fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.got)
    }

    fn take_polled(&mut self) -> Vec<String> {
        self.poll();
        self.take()
    }
}

fn rig(names: &[&str]) -> Rig {
    let mut rig = Rig::new(Options::default());
    names.iter().for_each(|name| rig.follow(name));
    rig
}

const NOTHING: [&str; 0] = [];

#[test]
fn lines_are_handed_out_when_their_ends_are_there() {
    let mut rig = rig(&["a"]);
    assert_eq!(rig.take_polled(), NOTHING);
    rig.write("a", "one\ntw");
    assert_eq!(rig.take_polled(), ["one"]);
    rig.write("a", "o\r\n\n\r\nthr\0ee\r\r\n\u{fffd}");
    assert_eq!(rig.take_polled(), ["two", "", "", "thr\0ee\r"]);
    rig.restart(true);
    assert_eq!(rig.take_polled(), NOTHING);
    rig.write("a", "!\n");
    assert_eq!(rig.take_polled(), ["\u{fffd}!"]);
}

#[test]
fn a_file_that_is_renamed_is_read_to_its_end_and_for_a_while_on() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n");
    assert_eq!(rig.take_polled(), ["1"]);
    rig.write("a", "2\n");
    rig.rename("a", "a.1");
    rig.write("a", "4\n");
    // Whoever writes has not seen it yet.
    rig.write("a.1", "3\nhalf");
    assert_eq!(rig.take_polled(), ["2", "3", "4"]);
    rig.write("a.1", " a line\nno end");
    rig.pass(100);
    assert_eq!(rig.take_polled(), ["half a line"]);
    rig.pass(UNENDED_WAIT_MS);
    assert_eq!(rig.take_polled(), ["no end"]);
    rig.pass_long();
    rig.write("a", "5\n");
    assert_eq!(rig.take_polled(), ["5"]);
    assert!(!rig.tails[0].lingers());
    assert_eq!(rig.tails[0].counts(), Counts { rotated: 1, ..Counts::default() });
    rig.restart(true);
    assert_eq!(rig.take_polled(), NOTHING);
}

#[test]
fn a_file_that_is_deleted_gives_its_last_line_at_once() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n2");
    assert_eq!(rig.take_polled(), ["1"]);
    fs::remove_file(rig.path("a")).unwrap();
    assert_eq!(rig.take_polled(), ["2"]);
    rig.pass_long();
    assert_eq!(rig.take_polled(), NOTHING);
    rig.write("a", "3\n");
    assert_eq!(rig.take_polled(), ["3"]);
}

#[test]
fn what_was_rotated_while_nobody_looked_is_found() {
    for clean in [true, false] {
        let mut rig = rig(&["a"]);
        rig.write("a", "1\n");
        rig.poll();
        rig.save();
        rig.write("a", "2\n");
        rig.restart(clean);
        rig.pass(10_000);
        rig.rename("a", "a.1");
        rig.write("a", "3\n");
        rig.rename("a.1", "a.2");
        rig.rename("a", "a.1");
        rig.write("a", "4\n");
        // Neither of these is a rotated file.
        rig.write("a.err", "x\n");
        rig.write("b.1", "x\n");
        rig.take();
        assert_eq!(rig.take_polled(), ["2", "3", "4"], "{clean}");
        rig.pass_long();
        rig.write("a", "5\n");
        assert_eq!(rig.take_polled(), ["5"]);
        rig.restart(true);
        assert_eq!(rig.take_polled(), NOTHING);
    }
}

#[test]
fn two_rotations_between_two_looks_lose_nothing() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n");
    rig.poll();
    rig.write("a", "2\n");
    rig.pass(3_000);
    rig.rename("a", "a.1");
    rig.write("a", "3\n");
    rig.rename("a.1", "a.2");
    rig.rename("a", "a.1");
    rig.write("a", "4\n");
    rig.pass(3_000);
    assert_eq!(rig.take_polled(), ["1", "2", "3", "4"]);
    rig.pass_long();
    assert_eq!(rig.take_polled(), NOTHING);
}

#[test]
fn after_a_copy_and_a_cut_the_rest_is_read_in_the_copy() {
    for restarted in [false, true] {
        let mut rig = rig(&["a"]);
        rig.write("a", "1\n2\n");
        rig.poll();
        rig.write("a", "3\n");
        if restarted {
            rig.restart(true);
        }
        rig.copy_and_truncate("a", "a.1");
        rig.write("a", "4\n");
        assert_eq!(rig.take_polled(), ["1", "2", "3", "4"]);
        rig.pass_long();
        rig.restart(true);
        assert_eq!(rig.take_polled(), NOTHING);
    }
}

#[test]
fn what_was_rotated_and_compressed_while_nobody_looked_is_found() {
    for cut in [false, true] {
        let mut rig = rig(&["a"]);
        let pack = |rig: &Rig, from: &str, to: &str| {
            let modified = fs::metadata(rig.path(from)).unwrap().modified().unwrap();
            let mut encoder =
                flate2::write::GzEncoder::new(File::create(rig.path(to)).unwrap(), flate2::Compression::fast());
            encoder.write_all(&fs::read(rig.path(from)).unwrap()).unwrap();
            encoder.finish().unwrap().set_modified(modified).unwrap();
            fs::remove_file(rig.path(from)).unwrap();
        };
        rig.write("a", "0\n");
        rig.poll();
        rig.write("a", "1\n");
        rig.poll();
        rig.save();
        rig.write("a", "2\n");
        rig.restart(false);
        rig.pass(5_000);
        if cut {
            rig.copy_and_truncate("a", "a.1");
        } else {
            rig.rename("a", "a.1");
        }
        pack(&rig, "a.1", "a.2.gz");
        rig.write("a", "3\nno end");
        if cut {
            rig.copy_and_truncate("a", "a.1");
        } else {
            rig.rename("a", "a.1");
        }
        pack(&rig, "a.1", "a.1.gz");
        rig.write("a", "4\n");
        rig.take();
        assert_eq!(rig.take_polled(), ["2", "3", "no end", "4"], "{cut}");
        rig.pass_long();
        rig.restart(true);
        rig.write("a", "5\n");
        assert_eq!(rig.take_polled(), ["5"]);
    }
}

#[test]
fn a_file_that_was_cut_and_regrew_is_read_from_its_beginning() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n2\n");
    rig.poll();
    rig.take();
    rig.copy_and_truncate("a", "elsewhere");
    rig.write("a", "a longer line than those that were there\n");
    assert_eq!(rig.take_polled(), ["a longer line than those that were there"]);
    assert_eq!(rig.tails[0].counts().truncated, 1);
    // Of the same length as before.
    rig.copy_and_truncate("a", "elsewhere");
    rig.pass(1);
    rig.write("a", "A longer line than those that were there\n");
    assert_eq!(rig.take_polled(), ["A longer line than those that were there"]);
}

#[test]
fn zeros_that_a_writer_leaves_before_his_place_are_no_text() {
    let mut rig = rig(&["a"]);
    rig.write("a", vec![b'x'; 70_000]);
    rig.write("a", "\n");
    rig.poll();
    rig.take();
    rig.copy_and_truncate("a", "elsewhere");
    rig.poll();
    let file = OpenOptions::new().write(true).open(rig.path("a")).unwrap();
    file.set_len(70_001).unwrap();
    rig.write("a", "after\n");
    assert_eq!(rig.take_polled(), ["after"]);
    rig.write("a", "\0more\n");
    assert_eq!(rig.take_polled(), ["\0more"]);
}

#[test]
fn a_file_that_is_written_anew_with_its_content_goes_on() {
    let mut rig = rig(&["a"]);
    let long: String = (0..400).map(|n| format!("line {n}\n")).collect();
    rig.write("a", &long);
    rig.poll();
    assert_eq!(rig.take().len(), 400);
    rig.write("b", format!("{long}new\n"));
    rig.rename("b", "a");
    assert_eq!(rig.take_polled(), ["new"]);
    // While nobody looked, too.
    rig.restart(true);
    rig.write("b", format!("{long}new\nnewer\n"));
    rig.rename("b", "a");
    assert_eq!(rig.take_polled(), ["newer"]);
}

#[test]
fn files_with_the_same_beginning_are_both_read() {
    let mut rig = rig(&["a", "b"]);
    let greeting = "hello\n".repeat(300);
    rig.write("a", format!("{greeting}a\n"));
    rig.write("b", format!("{greeting}b\n"));
    rig.poll();
    assert_eq!(rig.take().len(), 602);
    rig.rename("a", "a.1");
    rig.write("a", format!("{greeting}c\n"));
    rig.poll();
    assert_eq!(rig.take().len(), 301);
    // And where the old one is gone.
    fs::remove_file(rig.path("b")).unwrap();
    rig.write("b", "hello\n");
    assert_eq!(rig.take_polled(), ["hello"]);
}

#[test]
fn a_rotated_file_that_is_read_under_its_new_name_goes_on() {
    let mut rig = rig(&["a", "a.1"]);
    rig.write("a", "1\n");
    assert_eq!(rig.take_polled(), ["1"]);
    rig.rename("a", "a.1");
    rig.write("a.1", "2\n");
    rig.write("a", "3\n");
    // The old name has it for a while.
    assert_eq!(rig.take_polled(), ["2", "3"]);
    assert!(matches!(rig.step(1), Step::Waits));
    rig.pass_long();
    rig.write("a.1", "4\n");
    assert_eq!(rig.take_polled(), ["4"]);
    rig.restart(true);
    rig.rename("a.1", "a.2");
    rig.rename("a", "a.1");
    rig.write("a.1", "5\n");
    rig.write("a", "6\n");
    rig.poll();
    rig.pass_long();
    assert_eq!(rig.take(), ["6", "5"]);
    // A copy, too.
    rig.rename("a.1", "a.2");
    rig.copy_and_truncate("a", "a.1");
    rig.write("a", "7\n");
    rig.pass_long();
    assert_eq!(rig.take(), ["7"]);
}

#[cfg(unix)]
#[test]
fn two_names_of_a_file_are_both_read_and_a_link_may_lead_elsewhere() {
    use std::os::unix::fs::symlink;

    let mut rig = rig(&["x", "link"]);
    rig.write("x", "1\n");
    symlink("x", rig.path("link")).unwrap();
    assert_eq!(rig.take_polled(), ["1", "1"]);
    rig.write("y", "2\n");
    rig.write("x", "3\n");
    fs::remove_file(rig.path("link")).unwrap();
    symlink("y", rig.path("link")).unwrap();
    assert_eq!(rig.take_polled(), ["3", "3", "2"]);
}

#[test]
fn a_number_that_the_system_gives_again_is_another_file() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n2\n3\n");
    rig.poll();
    rig.take();
    rig.restart(true);
    fs::remove_file(rig.path("a")).unwrap();
    rig.write("a", "4\n5\n6\n7\n");
    assert_eq!(rig.take_polled(), ["4", "5", "6", "7"]);
}

#[test]
fn unknown_files_begin_where_the_options_say() {
    let mut rig = rig(&["a", "b", "c"]);
    rig.options.unknown = Begin::End;
    rig.write("a", "1\n2\nhalf");
    rig.write("b", "no line");
    rig.write("c", "");
    rig.poll();
    rig.write("a", " a line\n");
    rig.write("b", "!\n");
    rig.write("c", "3\n");
    assert_eq!(rig.take_polled(), ["half a line", "no line!", "3"]);
    // What comes after a rotation is read whole, and so is what was written while nobody looked.
    rig.rename("a", "a.1");
    rig.write("a", "4\n");
    assert_eq!(rig.take_polled(), ["4"]);
    rig.restart(true);
    rig.write("a", "5\n");
    assert_eq!(rig.take_polled(), ["5"]);
}

#[test]
fn the_end_of_the_last_line_is_found_from_behind() {
    let dir = tempfile::tempdir().unwrap();
    for (encoding, text, expected) in [
        ("", b"".to_vec(), 0),
        ("", b"abc".to_vec(), 0),
        ("", b"abc\n".to_vec(), 4),
        ("", [b"abc\n".to_vec(), vec![b'x'; 200_000]].concat(), 4),
        ("utf-16le", b"a\0\n\0b\0".to_vec(), 4),
        ("utf-16le", b"a\0\n\0b\0\n".to_vec(), 4),
        ("", b"\xff\xfea\0\n\0b\0".to_vec(), 6),
    ] {
        fs::write(dir.path().join("a"), &text).unwrap();
        let file = File::open(dir.path().join("a")).unwrap();
        let options = Options { encoding: Encoding::named(encoding).unwrap(), ..Options::default() };
        let found = piece::end_of_last_line(&file, text.len() as u64, &options).unwrap();
        assert_eq!(found, expected, "{encoding} {}", text.len());
    }
}

#[test]
fn positions_of_the_reference_are_taken_over_once() {
    let mut rig = Rig::new(Options::default());
    rig.write("a", "1\n2\n3\n");
    rig.write("b", "1\n");
    rig.write("c", "1\n");
    let yaml = format!(
        "positions:\n  ? path: {0}/a\n    labels: '{{}}'\n  : \"2\"\n  ? path: {0}/a\n    labels: '{{job=\"x\"}}'\n  : \"4\"\n  \
         ? path: {0}/b\n    labels: '{{}}'\n  : \"99\"\n  ? path: {0}/c\n    labels: '{{}}'\n  : cursor\n",
        rig.dir.path().display()
    );
    fs::create_dir(rig.path("data")).unwrap();
    fs::write(rig.path("data/positions.yml"), yaml).unwrap();
    let (positions, loaded) = Positions::load(&rig.path("data"), None).unwrap();
    assert_eq!(loaded.converted.unwrap().0, 4);
    rig.positions = Mutex::new(positions);
    rig.options.damaged = Begin::End;
    ["a", "b", "c"].iter().for_each(|name| rig.follow(name));
    rig.poll();
    // That of the labels; of a file that is shorter now, from its beginning; of what is no offset, as the options say.
    assert_eq!(rig.take(), ["2", "3", "1"]);
    rig.restart(true);
    rig.write("a", "4\n");
    assert_eq!(rig.take_polled(), ["4"]);
    rig.options.damaged = Begin::Skip;
}

#[test]
fn what_was_lost_on_its_way_is_read_again() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n");
    rig.poll();
    rig.write("a", "2\n");
    let Step::Chunk(_) = rig.step(0) else { panic!("there are lines") };
    rig.rename("a", "a.1");
    rig.write("a", "3\n");
    let Step::Chunk(_) = rig.step(0) else { panic!("there are lines") };
    fs::remove_file(rig.path("a.1")).unwrap();
    rig.pass(LINGER_MS * 2);
    rig.step(0);
    rig.take();
    rig.tails[0].rewind();
    assert_eq!(rig.take_polled(), ["2", "3"]);
}

#[test]
fn a_line_may_be_long_and_longer_ones_come_in_pieces() {
    let options = Options { turn_bytes: 1000, line_bytes_max: 200_000, ..Options::default() };
    let mut rig = Rig::new(options);
    rig.follow("a");
    let long = "x".repeat(150_000);
    rig.write("a", "1\n");
    rig.write("a", &long);
    rig.poll();
    rig.write("a", &long[..40_000]);
    rig.poll();
    assert_eq!(rig.take(), ["1"]);
    rig.write("a", "\n2\n");
    rig.poll();
    let got = rig.take();
    assert_eq!((got[0].len(), &*got[1], got.len()), (190_000, "2", 2));
    rig.write("a", format!("{long}{long}\n3\n"));
    rig.poll();
    let got: Vec<usize> = rig.take().iter().map(String::len).collect();
    assert_eq!(got, [200_000, 100_000, 1]);
}

#[test]
fn encodings_are_decoded_and_marks_at_the_beginning_count_more() {
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    for turn_bytes in [7, 64, 256 << 10] {
        let options = Options { encoding: Encoding::named("latin1").unwrap(), turn_bytes, ..Options::default() };
        let mut rig = Rig::new(options);
        ["plain", "utf8", "utf16"].iter().for_each(|name| rig.follow(name));
        rig.write("plain", b"\xe4\r\n");
        rig.write("utf8", b"\xef");
        rig.write("utf16", b"\xff\xfe");
        rig.poll();
        rig.write("utf8", b"\xbb\xbf\xc3\xa4\r\n");
        // A line feed across two buffers, and characters that have its byte.
        rig.write("utf16", [utf16("a\u{0a00}\u{010a}b\r\n"), vec![b'\n']].concat());
        assert_eq!(rig.take_polled(), ["ä", "ä", "a\u{0a00}\u{010a}b"], "{turn_bytes}");
        rig.write("utf16", [vec![0], utf16("€\n")].concat());
        rig.restart(true);
        assert_eq!(rig.take_polled(), ["", "€"]);
    }
}

#[cfg(unix)]
#[test]
fn what_is_no_plain_file_is_not_opened() {
    let rig = rig(&[]);
    for name in ["", "/dev/null"] {
        let mut tail = Tail::new(rig.path(name).to_str().unwrap(), vec![]);
        let world = World {
            now_ms: rig.now_ms,
            positions: &rig.positions,
            is_target: &|_| false,
            options: &rig.options,
            buffers: &rig.buffers,
            unpacking: &rig.unpacking,
        };
        assert!(tail.poll(&world).is_err(), "{name}");
    }
}

#[test]
fn positions_survive_damage_of_their_file() {
    let dir = tempfile::tempdir().unwrap();
    let record = |inode: u64, offset: u64| Record {
        id: FileId { device: 1, inode },
        mark: Mark { offset, ..Mark::default() },
        seen_ms: 1_000,
        ..Record::default()
    };
    let (mut positions, _) = Positions::load(dir.path(), None).unwrap();
    let names: Vec<Arc<str>> = ["/a", "/b c\n\\", "/d"].map(Arc::from).to_vec();
    for (place, name) in names.iter().enumerate() {
        positions.put(name, record(place as u64, 10));
    }
    positions.save().unwrap();
    positions.put(&names[1], record(1, 20));
    positions.put(&names[1], record(7, 0));
    positions.remove(&names[2], FileId { device: 1, inode: 2 });
    positions.save().unwrap();
    let (read, loaded) = Positions::load(dir.path(), None).unwrap();
    assert_eq!((loaded.damaged, read.len()), (0, 3));
    assert_eq!(read.records("/b c\n\\"), [record(1, 20), record(7, 0)]);
    assert!(read.records("/d").is_empty());
    let file = dir.path().join(crate::positions::FILE_NAME);
    let whole = fs::read(&file).unwrap();
    // Half a line at the end is no damage.
    fs::write(&file, &whole[..whole.len() - 3]).unwrap();
    assert_eq!(Positions::load(dir.path(), None).unwrap().1.damaged, 0);
    let mut damaged = whole.clone();
    damaged[12] ^= 1;
    fs::write(&file, &damaged).unwrap();
    let (read, loaded) = Positions::load(dir.path(), None).unwrap();
    assert_eq!(loaded.damaged, 1);
    for name in ["/a", "/b c\n\\"] {
        assert!(!read.records(name).is_empty() || read.imported(name, &[]).unwrap().is_err(), "{name}");
    }
}

#[test]
fn what_was_read_of_a_file_is_known_when_its_number_is_given_again() {
    let mut positions = Positions::in_memory();
    let name: Arc<str> = "/a".into();
    let record = |birth_ns: u64, offset: u64| Record {
        id: FileId { device: 1, inode: 5 },
        birth_ns,
        mark: Mark { offset, ..Mark::default() },
        ..Record::default()
    };
    positions.put(&name, record(1, 10));
    positions.put(&name, record(1, 20));
    positions.put(&name, record(2, 0));
    positions.put(&name, record(3, 0));
    let known: Vec<_> = positions.records("/a").iter().map(|r| (r.birth_ns, r.mark.offset, r.done)).collect();
    assert_eq!(known, [(3, 0, false), (1, 20, true)]);
}

#[test]
fn positions_expire_a_week_after_the_last_sign_of_life_in_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let (mut positions, _) = Positions::load(dir.path(), None).unwrap();
    let week = crate::positions::KEEP_MS;
    let record = |inode: u64, seen_ms: u64| Record { id: FileId { device: 1, inode }, seen_ms, ..Record::default() };
    let (old, idle, new): (Arc<str>, Arc<str>, Arc<str>) = ("/old".into(), "/idle".into(), "/new".into());
    positions.put(&old, record(1, 1_000));
    positions.put(&idle, record(2, 1_000));
    positions.hold(&idle, FileId { device: 1, inode: 2 });
    positions.touch(week + 2_000);
    positions.put(&new, record(3, week + 2_000));
    positions.save().unwrap();
    let (read, _) = Positions::load(dir.path(), None).unwrap();
    assert!(read.records("/old").is_empty());
    assert_eq!((read.records("/idle").len(), read.records("/new").len()), (1, 1));
}

#[test]
fn a_file_is_read_under_a_name_until_it_was_let_go_of_as_often_as_it_was_held() {
    let mut positions = Positions::in_memory();
    let id = FileId { device: 1, inode: 1 };
    let (a, b): (Arc<str>, Arc<str>) = ("/a".into(), "/b".into());
    let names = |positions: &Positions| {
        let held: Vec<String> = positions.holders(id).map(|name| name.to_string()).collect();
        let known: Vec<String> = positions.of_file(id).map(|(name, _)| name.to_string()).collect();
        (held.join(" "), known.join(" "))
    };
    positions.hold(&a, id);
    positions.hold(&a, id);
    positions.put(&b, Record { id, ..Record::default() });
    assert_eq!(names(&positions), ("/a".into(), "/b".into()));
    positions.put(&a, Record { id, ..Record::default() });
    positions.let_go(&a, id);
    positions.let_go(&b, id);
    positions.remove(&a, id);
    assert_eq!(names(&positions), ("/a".into(), "/b".into()));
    positions.let_go(&a, id);
    positions.let_go(&a, id);
    positions.hold(&b, id);
    assert_eq!(names(&positions), ("/b".into(), "/b".into()));
    positions.hold(&a, id);
    positions.let_all_go();
    assert_eq!(names(&positions), (String::new(), "/b".into()));
    positions.remove(&b, id);
    assert_eq!(names(&positions), (String::new(), String::new()));
    assert!(positions.is_empty() && positions.records("/a").is_empty());
}

#[test]
fn a_sign_of_life_that_is_yet_to_come_has_nothing_else_expire() {
    let dir = tempfile::tempdir().unwrap();
    let (mut positions, _) = Positions::load(dir.path(), None).unwrap();
    let now_ms = UNIX_EPOCH.elapsed().unwrap().as_millis() as u64;
    let record = |inode: u64, seen_ms: u64| Record { id: FileId { device: 1, inode }, seen_ms, ..Record::default() };
    let (new, ahead): (Arc<str>, Arc<str>) = ("/new".into(), "/ahead".into());
    positions.put(&new, record(1, now_ms));
    // The clock was wrong for a moment.
    positions.put(&ahead, record(2, now_ms + 10 * crate::positions::KEEP_MS));
    positions.save().unwrap();
    let (read, _) = Positions::load(dir.path(), None).unwrap();
    assert_eq!((read.records("/new").len(), read.records("/ahead").len()), (1, 1));
}

#[test]
fn a_copy_that_was_written_over_while_it_is_read_is_not_read_again() {
    let mut rig = rig(&["a"]);
    let mut expected = Vec::new();
    rig.poll();
    for round in 0..4 {
        rig.write("a", format!("{round} seen\n"));
        rig.poll();
        rig.write("a", format!("{round} not seen\n"));
        rig.copy_and_truncate("a", "a.1");
        expected.extend([format!("{round} seen"), format!("{round} not seen")]);
        rig.pass(100);
        rig.poll();
        assert_eq!(rig.got, expected);
    }
    rig.pass_long();
    assert_eq!(rig.take(), expected);
}

#[test]
fn what_was_read_after_it_was_copied_does_not_have_the_copy_read_again() {
    for copy_is_read in [false, true] {
        let mut rig = rig(if copy_is_read { &["a", "a.1"] } else { &["a"] });
        let text: String = (0..1_000).map(|n| format!("line {n}\n")).collect();
        // The name of the copy was that of the one before.
        rig.write("a.1", if copy_is_read { "an older copy\n" } else { "" });
        rig.poll();
        rig.take();
        rig.rename("a.1", "a.2");
        rig.write("a", &text);
        rig.poll();
        fs::write(rig.path("a.1"), &text[..1_000]).unwrap();
        rig.write("a.1", "");
        rig.pass(100);
        rig.poll();
        fs::copy(rig.path("a"), rig.path("a.1")).unwrap();
        rig.write("a.1", "");
        rig.pass(100);
        rig.poll();
        rig.write("a", "after the copy\n");
        rig.poll();
        rig.save();
        OpenOptions::new().write(true).truncate(true).open(rig.path("a")).unwrap();
        rig.write("a", "new\n");
        rig.pass(100);
        rig.poll();
        rig.pass_long();
        assert_eq!(rig.got.len(), 1_002, "{copy_is_read}");
        assert_eq!(rig.got[1_000..], ["after the copy", "new"]);
    }
}

#[test]
fn what_was_lost_on_its_way_and_cut_meanwhile_is_read_in_the_copy() {
    for settles in [false, true] {
        let mut rig = rig(&["a"]);
        if settles {
            rig.write("a", "0\n");
            rig.poll();
        }
        let before = rig.take().len();
        rig.write("a", "1\n2\n");
        let Step::Chunk(_) = rig.step(0) else { panic!("lines") };
        rig.tails[0].rewind();
        rig.copy_and_truncate("a", "a.1");
        rig.write("a", "3 and more than there was before\n");
        rig.pass(100);
        assert_eq!(rig.take_polled(), ["1", "2", "3 and more than there was before"], "{before}");
    }
}

#[test]
fn a_clock_that_is_set_back_keeps_no_file_open_that_lost_its_name() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n");
    rig.poll();
    rig.rename("a", "a.1");
    rig.poll();
    rig.now_ms -= 24 * 3600 * 1000;
    rig.pass_long();
    assert!(!rig.tails[0].lingers());
    assert_eq!(rig.take(), ["1"]);
}

#[test]
fn other_positions_files_are_read_as_the_reference_does() {
    let load = |files: &[(&str, &str)]| {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.path().join(name), text).unwrap());
        let outcome = Positions::load(dir.path(), Some(&dir.path().join("legacy")));
        outcome.map(|(positions, loaded)| {
            let of = |name: &str| positions.imported(name, &["{}".to_owned()]);
            (of("/a"), loaded.converted.map(|(count, _)| count), loaded.ignored.is_some())
        })
    };
    assert_eq!(load(&[]), Ok((None, None, true)));
    assert_eq!(load(&[("positions.yml", "")]), Ok((None, None, true)));
    let legacy = ("legacy", "positions:\n  /a: \"5\"\n  cursor-x: \"x\"\n");
    assert_eq!(load(&[legacy]), Ok((Some(Ok(5)), Some(1), false)));
    assert_eq!(load(&[("positions.yml", "positions: {}\nother: 1\n"), legacy]), Ok((Some(Ok(5)), Some(1), false)));
    let own = ("positions.yml", "positions:\n  ? path: /a\n  : \"7\"\n  ? {path: /b, labels: ''}\n  : \"8\"\n");
    assert_eq!(load(&[own, legacy]), Ok((Some(Ok(7)), Some(2), false)));
    assert_eq!(load(&[("legacy", "positions: [")]), Ok((None, None, true)));
    for broken in ["positions: [", "a: b: c", "positions:\n  ? [1]\n  : \"1\"\n", "- 1"] {
        assert!(load(&[("positions.yml", broken), legacy]).is_err(), "{broken}");
    }
}

proptest! {
    #[test]
    fn no_text_is_too_much_for_reading_positions(text in "\\PC{0,200}", bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let dir = tempfile::tempdir().unwrap();
        for content in [text.as_bytes(), &bytes] {
            fs::write(dir.path().join(crate::positions::REFERENCE_FILE_NAME), content).unwrap();
            let _ = Positions::load(dir.path(), None);
            let own = dir.path().join(crate::positions::FILE_NAME);
            fs::write(&own, content).unwrap();
            Positions::load(dir.path(), None).unwrap();
            fs::remove_file(own).unwrap();
        }
    }
}

/// What happens to a file.
#[derive(Clone, Debug)]
enum Happens {
    Lines(u8),
    Half,
    Long,
    RenameAndCreate,
    CopyAndCut,
    Delete,
    /// A line to the file that was renamed last.
    LateLine,
    Poll(u8),
    Pass(u16),
    Save,
    Restart {
        clean: bool,
    },
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        6 => (1..6u8).prop_map(Happens::Lines),
        2 => Just(Happens::Half),
        1 => Just(Happens::Long),
        3 => Just(Happens::RenameAndCreate),
        2 => Just(Happens::CopyAndCut),
        1 => Just(Happens::Delete),
        1 => Just(Happens::LateLine),
        6 => (1..8u8).prop_map(Happens::Poll),
        2 => (0..6000u16).prop_map(Happens::Pass),
        1 => Just(Happens::Save),
        1 => any::<bool>().prop_map(|clean| Happens::Restart { clean }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_a_file_each_line_is_read_once(story in prop::collection::vec(happens(), 1..60)) {
        let mut rig = Rig::new(Options { turn_bytes: 100, ..Options::default() });
        rig.follow("a.log");
        rig.poll();
        let mut written = 0;
        // What must come, with how often it may.
        let mut expected: BTreeMap<String, bool> = BTreeMap::new();
        let mut may_be_missing: BTreeSet<String> = BTreeSet::new();
        let mut half = String::new();
        let mut rotations = 0;
        let mut last_rotation_ms = None;
        // Since when nobody looks.
        let mut is_down = false;
        // Whether the file of the name was looked at, and when the name was.
        let mut was_seen = false;
        let mut looked_ms = rig.now_ms;
        let mut began = false;
        let mut renamed_was_seen = false;
        let mut deleted = BTreeSet::new();
        let mut may_repeat = false;
        let line = |written: &mut u32| {
            *written += 1;
            format!("{written}{}", "-".repeat(*written as usize * 7 % 40))
        };
        for event in story {
            rig.pass(10);
            match event {
                Happens::Lines(count) => {
                    for _ in 0..count {
                        let text = line(&mut written);
                        rig.write("a.log", format!("{text}\n"));
                        expected.insert(format!("{}{text}", std::mem::take(&mut half)), true);
                    }
                }
                Happens::Half => {
                    let text = line(&mut written);
                    rig.write("a.log", &text);
                    half.push_str(&text);
                }
                Happens::Long => {
                    let text = format!("{}{}", line(&mut written), "=".repeat(500));
                    rig.write("a.log", format!("{text}\n"));
                    expected.insert(format!("{}{text}", std::mem::take(&mut half)), true);
                }
                Happens::RenameAndCreate => {
                    if !rig.path("a.log").exists() {
                        continue;
                    }
                    for number in (1..=rotations).rev() {
                        let from = format!("a.log.{number}");
                        if rig.path(&from).exists() {
                            rig.rename(&from, &format!("a.log.{}", number + 1));
                        }
                    }
                    rotations += 1;
                    // What comes and goes within a second may go unseen, and what came before anything was known.
                    if !was_seen && (rig.now_ms - looked_ms < ROTATION_MS_MIN || is_down && !began) {
                        may_be_missing.extend(expected.keys().filter(|text| !rig.got.contains(text)).cloned());
                        may_be_missing.insert(half.clone());
                    }
                    renamed_was_seen = was_seen;
                    was_seen = false;
                    rig.rename("a.log", "a.log.1");
                    rig.write("a.log", "");
                    if !half.is_empty() {
                        expected.insert(std::mem::take(&mut half), true);
                    }
                    last_rotation_ms = Some(rig.now_ms);
                }
                Happens::CopyAndCut => {
                    if !rig.path("a.log").exists() {
                        continue;
                    }
                    rotations += 1;
                    let unread = expected.keys().filter(|text| !rig.got.contains(text)).cloned();
                    may_be_missing.extend(unread);
                    may_be_missing.insert(half.clone());
                    expected.insert(std::mem::take(&mut half), true);
                    for number in (1..rotations).rev() {
                        let from = format!("a.log.{number}");
                        if rig.path(&from).exists() {
                            rig.rename(&from, &format!("a.log.{}", number + 1));
                        }
                    }
                    rig.copy_and_truncate("a.log", "a.log.1");
                    last_rotation_ms = None;
                }
                Happens::Delete => {
                    if !rig.path("a.log").exists() {
                        continue;
                    }
                    if !half.is_empty() {
                        expected.insert(std::mem::take(&mut half), true);
                    }
                    // Who has it open reads it to its end, unless he ends himself.
                    deleted.extend(expected.keys().filter(|text| !rig.got.contains(text)).cloned());
                    if is_down || !was_seen {
                        let unread = expected.keys().filter(|text| !rig.got.contains(text)).cloned();
                        may_be_missing.extend(unread);
                    }
                    was_seen = false;
                    fs::remove_file(rig.path("a.log")).unwrap();
                }
                Happens::LateLine => {
                    let recent = last_rotation_ms.is_some_and(|at| rig.now_ms - at < 1_000);
                    if recent && rig.path("a.log.1").exists() {
                        let text = line(&mut written);
                        let before = fs::read(rig.path("a.log.1")).unwrap();
                        // Not after a line that was handed out without its end.
                        if before.is_empty() || before.ends_with(b"\n") {
                            rig.write("a.log.1", format!("{text}\n"));
                            expected.insert(text.clone(), true);
                            if is_down || !renamed_was_seen {
                                may_be_missing.insert(text);
                            }
                        }
                    }
                }
                Happens::Poll(steps) => {
                    rig.poll_up_to(steps.into());
                    is_down = false;
                    was_seen = rig.tails[0].is_open();
                    began |= was_seen;
                    looked_ms = rig.now_ms;
                }
                Happens::Pass(span_ms) => {
                    rig.pass(span_ms.into());
                    rig.poll_up_to(3);
                    is_down = false;
                    was_seen = rig.tails[0].is_open();
                    began |= was_seen;
                    looked_ms = rig.now_ms;
                }
                Happens::Save => rig.save(),
                Happens::Restart { clean } => {
                    rig.restart(clean);
                    may_be_missing.append(&mut deleted);
                    is_down = true;
                    may_repeat |= !clean;
                    was_seen = false;
                }
            }
        }
        rig.poll();
        rig.pass_long();
        rig.pass_long();
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        rig.got.iter().for_each(|text| *counts.entry(text).or_default() += 1);
        for text in expected.keys().filter(|text| !text.is_empty()) {
            let count = counts.get(&**text).copied().unwrap_or(0);
            prop_assert!(count > 0 || may_be_missing.contains(text), "{text} is missing; got {:?}", rig.got);
            prop_assert!(count < 2 || may_repeat, "{text} came {count} times; got {:?}", rig.got);
        }
        if may_be_missing.is_empty() {
            for text in counts.keys() {
                prop_assert!(expected.contains_key(*text), "{text} was never written");
            }
        }
    }
}

#[test]
fn what_was_begun_with_is_read_in_its_copy_though_nothing_of_it_was_noted() {
    for (restarted, is_empty_then) in [(false, false), (true, false), (false, true), (true, true)] {
        let mut rig = rig(&["a"]);
        rig.write("a", "1\n");
        rig.poll();
        rig.copy_and_truncate("a", "a.1");
        rig.poll();
        if restarted {
            // What is known is written anew then, in order.
            rig.restart(false);
            rig.poll();
        }
        assert_eq!(rig.got.last().unwrap(), "1");
        rig.take();
        rig.pass(10);
        rig.write("a", "2\n");
        // That it was cut is saved, and how far it is read after that is not.
        assert_eq!(rig.take_polled(), ["2"]);
        rig.write("a", "3\n");
        rig.restart(false);
        rig.pass(300);
        rig.copy_and_truncate("a", "a.2");
        rig.pass(10);
        if is_empty_then {
            assert_eq!(rig.take_polled(), ["2", "3"]);
        }
        rig.write("a", "4\n");
        assert_eq!(rig.take_polled(), if is_empty_then { vec!["4"] } else { vec!["2", "3", "4"] });
        rig.pass_long();
        rig.restart(true);
        rig.write("a", "5\n");
        assert_eq!(rig.take_polled(), ["5"]);
    }
}

#[test]
fn what_is_at_its_beginning_since_a_start_may_be_cut_unseen() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n");
    rig.poll();
    rig.copy_and_truncate("a", "a.1");
    rig.poll();
    rig.restart(true);
    rig.pass(5_000);
    assert_eq!(rig.take(), ["1"]);
    assert_eq!(rig.take_polled(), NOTHING);
    rig.write("a", "2\n");
    rig.copy_and_truncate("a", "a.2");
    rig.pass(10);
    rig.write("a", "3\n");
    assert_eq!(rig.take_polled(), ["2", "3"]);
}

#[test]
fn what_is_cut_again_before_anything_of_it_was_read_is_read_in_its_copy() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n");
    rig.poll();
    rig.copy_and_truncate("a", "a.1");
    rig.pass(10);
    rig.write("a", "2\n");
    fs::copy(rig.path("a"), rig.path("a.2")).unwrap();
    rig.write("a.2", "");
    // It is seen that it was cut, and no more than that.
    assert!(matches!(rig.step(0), Step::More));
    rig.pass(10);
    OpenOptions::new().write(true).truncate(true).open(rig.path("a")).unwrap();
    rig.write("a", "3\n");
    assert_eq!(rig.take_polled(), ["1", "2", "3"]);
    rig.pass_long();
    assert_eq!(rig.take(), NOTHING);
}

#[test]
fn what_is_cut_while_older_files_are_read_slowly_is_read_in_its_copy() {
    for begun in [false, true] {
        let mut rig = Rig::new(Options { turn_bytes: 8, ..Options::default() });
        rig.follow("a");
        rig.write("a", "1\n");
        rig.poll();
        rig.write("a", "2 2 2 2\n3 3 3 3\n4 4 4 4\n5 5 5 5\n");
        rig.pass(10);
        rig.copy_and_truncate("a", "a.1");
        rig.write("a", if begun { "6\n" } else { "" });
        assert!(matches!(rig.step(0), Step::More));
        let slowly = |rig: &mut Rig, count: usize| {
            for _ in 0..count {
                let Step::Chunk(chunk) = rig.step(0) else { panic!("there are lines") };
                rig.got.push(String::from_utf8_lossy(chunk.lines[0].of(&chunk.text)).into_owned());
                rig.tails[0].settle(chunk.piece, chunk.end);
                rig.pass(3_000);
            }
        };
        slowly(&mut rig, 1);
        rig.write("a", "7\n");
        rig.copy_and_truncate("a", "a.2");
        rig.write("a", "8\n");
        slowly(&mut rig, 3);
        rig.poll();
        let mut got = rig.take();
        got.retain(|line| line.len() == 1);
        assert_eq!(got, if begun { vec!["1", "6", "7", "8"] } else { vec!["1", "7", "8"] });
    }
}

#[test]
fn what_becomes_safe_long_after_a_cut_does_not_have_its_copy_overlooked() {
    let mut rig = Rig::new(Options { turn_bytes: 4, ..Options::default() });
    rig.follow("a");
    rig.write("a", "1\n2\n3\n4\n");
    let Step::Chunk(chunk) = rig.step(0) else { panic!("there are lines") };
    // There is no room for more meanwhile.
    rig.pass(500);
    rig.copy_and_truncate("a", "a.1");
    rig.write("a", "5\n");
    rig.pass(5_000);
    rig.tails[0].settle(chunk.piece, chunk.end);
    rig.save();
    rig.restart(false);
    assert_eq!(rig.take_polled(), ["3", "4", "5"]);
}

#[test]
fn what_is_behind_when_it_is_copied_and_cut_long_after_is_read_on_in_the_copy() {
    let mut rig = Rig::new(Options { turn_bytes: 2, ..Options::default() });
    rig.follow("a");
    rig.write("a", "1\n2\n3\n4\n5\n");
    fs::copy(rig.path("a"), rig.path("a.1")).unwrap();
    rig.write("a.1", "");
    for number in 1..=3 {
        let Step::Chunk(chunk) = rig.step(0) else { panic!("there are lines") };
        assert_eq!(chunk.lines[0].of(&chunk.text), number.to_string().as_bytes());
        rig.tails[0].settle(chunk.piece, chunk.end);
        rig.pass(2_500);
    }
    OpenOptions::new().write(true).truncate(true).open(rig.path("a")).unwrap();
    rig.write("a", "6\n");
    assert_eq!(rig.take_polled(), ["4", "5", "6"]);
}

#[test]
fn a_copy_that_is_not_found_when_a_file_is_cut_is_read_when_it_is_found() {
    let mut rig = rig(&["a"]);
    rig.write("a", "1\n");
    rig.poll();
    rig.write("a", "2\n");
    rig.copy_and_truncate("a", "a.1");
    // As when it gets another name just when it is looked for.
    rig.rename("a.1", "nowhere");
    rig.pass(10);
    rig.write("a", "3\n");
    assert_eq!(rig.take_polled(), ["1", "3"]);
    rig.rename("nowhere", "a.2");
    rig.pass(1_000);
    rig.copy_and_truncate("a", "a.1");
    rig.write("a", "4\n");
    assert_eq!(rig.take_polled(), ["2", "4"]);
    rig.pass_long();
    assert_eq!(rig.take(), NOTHING);
}

#[test]
fn what_was_read_beyond_the_end_of_a_copy_and_lost_is_read_again_in_the_copy() {
    for lost in [false, true] {
        let mut rig = rig(&["a"]);
        rig.poll();
        rig.write("a", "1\n");
        let Step::Chunk(first) = rig.step(0) else { panic!("lines") };
        rig.pass(10);
        fs::copy(rig.path("a"), rig.path("a.1")).unwrap();
        rig.write("a.1", "");
        rig.write("a", "not in the copy\n");
        let Step::Chunk(second) = rig.step(0) else { panic!("lines") };
        OpenOptions::new().write(true).truncate(true).open(rig.path("a")).unwrap();
        rig.write("a", "2\n");
        rig.pass(100);
        let Step::More = rig.step(0) else { panic!("it was cut") };
        if lost {
            rig.tails[0].rewind();
            assert_eq!(rig.take_polled(), ["1", "2"]);
        } else {
            rig.tails[0].settle(first.piece, first.end);
            rig.tails[0].settle(second.piece, second.end);
            assert_eq!(rig.take_polled(), ["2"]);
        }
        rig.pass_long();
        rig.restart(true);
        assert_eq!(rig.take_polled(), NOTHING, "{lost}");
    }
}

/// What happens to a file that is rotated by copying and cutting, and to who reads it.
#[derive(Clone, Debug)]
enum Cuts {
    Lines(u8),
    /// It is copied, and cut after so many lines that are in no copy and so many looks.
    CopyAndCut {
        unlucky: u8,
        looks: u8,
        restart: Option<bool>,
    },
    /// So many looks; what is read is on its way.
    Look(u8),
    /// What is on its way is safe.
    Settle,
    /// What is on its way is lost.
    Lose,
    Pass(u16),
    Save,
    /// Clean, all that is on its way becomes safe first.
    Restart {
        clean: bool,
    },
}

fn cuts() -> impl Strategy<Value = Cuts> {
    let cut = (0..3u8, 0..3u8, prop::option::weighted(0.1, any::<bool>()));
    prop_oneof![
        8 => (1..12u8).prop_map(Cuts::Lines),
        4 => cut.prop_map(|(unlucky, looks, restart)| Cuts::CopyAndCut { unlucky, looks, restart }),
        8 => (1..8u8).prop_map(Cuts::Look),
        4 => Just(Cuts::Settle),
        1 => Just(Cuts::Lose),
        2 => (0..3000u16).prop_map(Cuts::Pass),
        3 => Just(Cuts::Save),
        3 => any::<bool>().prop_map(|clean| Cuts::Restart { clean }),
    ]
}

/// A file that is rotated by copying and cutting.
struct Cut {
    rig: Rig,
    /// What was read and is on its way.
    on_way: Vec<(Chunk, Vec<String>)>,
    copies: usize,
    written: u32,
    /// Lines that are in no copy.
    destroyed: BTreeSet<String>,
    may_repeat: bool,
}

impl Cut {
    fn new() -> Self {
        let mut rig = Rig::new(Options { turn_bytes: 100, ..Options::default() });
        rig.follow("a.log");
        // What was cut before it was known at all is nobody's.
        rig.write("a.log", "known\n");
        rig.poll();
        rig.save();
        Cut { rig, on_way: vec![], copies: 0, written: 0, destroyed: BTreeSet::new(), may_repeat: false }
    }

    fn line(&mut self) -> String {
        self.written += 1;
        let text = format!("{}{}", self.written, "-".repeat(self.written as usize * 7 % 40));
        self.rig.write("a.log", format!("{text}\n"));
        text
    }

    fn look(&mut self, steps: usize) {
        for _ in 0..steps {
            let before = (self.rig.tails[0].is_open(), self.rig.tails[0].counts());
            let step = self.rig.step(0);
            if let Step::Chunk(chunk) = &step {
                let text = |line: &Line| String::from_utf8_lossy(line.of(&chunk.text)).into_owned();
                self.on_way.push((chunk.clone(), chunk.lines.iter().map(text).collect()));
            }
            if before != (self.rig.tails[0].is_open(), self.rig.tails[0].counts()) {
                self.rig.save();
            }
            if !matches!(step, Step::Chunk(_) | Step::More) {
                break;
            }
        }
    }

    fn settle(&mut self) {
        for (chunk, lines) in std::mem::take(&mut self.on_way) {
            self.rig.tails[0].settle(chunk.piece, chunk.end);
            self.rig.got.extend(lines);
        }
    }

    fn restart(&mut self, clean: bool) {
        if clean {
            self.settle();
        }
        self.may_repeat |= !clean;
        self.on_way.clear();
        self.rig.restart(clean);
    }

    fn happens(&mut self, event: &Cuts) {
        self.rig.pass(10);
        match *event {
            Cuts::Lines(count) => (0..count).for_each(|_| drop(self.line())),
            Cuts::CopyAndCut { unlucky, looks, restart } => {
                if !self.rig.path("a.log").exists() {
                    return;
                }
                for number in (1..=self.copies).rev() {
                    self.rig.rename(&format!("a.log.{number}"), &format!("a.log.{}", number + 1));
                }
                self.copies += 1;
                // What was read on after it was copied may be known by nothing that the copy has.
                self.may_repeat |= unlucky > 0;
                fs::copy(self.rig.path("a.log"), self.rig.path("a.log.1")).unwrap();
                self.rig.write("a.log.1", "");
                for _ in 0..unlucky {
                    let text = self.line();
                    self.destroyed.insert(text);
                }
                if let Some(clean) = restart {
                    self.restart(clean);
                }
                self.look(looks.into());
                self.rig.pass(1);
                OpenOptions::new().write(true).truncate(true).open(self.rig.path("a.log")).unwrap();
                self.rig.write("a.log", "");
            }
            Cuts::Look(steps) => self.look(steps.into()),
            Cuts::Settle => self.settle(),
            Cuts::Lose => {
                self.on_way.clear();
                self.rig.tails[0].rewind();
            }
            Cuts::Pass(span_ms) => self.rig.pass(span_ms.into()),
            Cuts::Save => self.rig.save(),
            Cuts::Restart { clean } => self.restart(clean),
        }
    }

    /// Reads all that there is; the lines that are missing, and those that came more than once.
    fn finish(mut self) -> (Vec<String>, Vec<String>) {
        for _ in 0..20 {
            self.look(10_000);
            self.settle();
            self.rig.pass(LINGER_MS / 2);
        }
        let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
        self.rig.got.iter().for_each(|text| *counts.entry(text).or_default() += 1);
        let all = (1..=self.written).map(|n| format!("{n}{}", "-".repeat(n as usize * 7 % 40)));
        let missing = all.filter(|text| !counts.contains_key(&**text) && !self.destroyed.contains(text)).collect();
        let repeated = counts.iter().filter(|(_, count)| **count > 1 && !self.may_repeat);
        (missing, repeated.map(|(text, _)| (*text).to_owned()).collect())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_to_a_file_that_is_copied_and_cut_each_line_is_read(
        story in prop::collection::vec(cuts(), 1..60)
    ) {
        let mut cut = Cut::new();
        story.iter().for_each(|event| cut.happens(event));
        let (missing, repeated) = cut.finish();
        prop_assert!(missing.is_empty() && repeated.is_empty(), "missing: {missing:?}, repeated: {repeated:?}");
    }
}

#[test]
fn what_was_read_on_in_one_turn_and_lost_is_found_in_the_copy_that_ends_between() {
    // After a restart nothing but what is safe is known of how the file was read.
    for restarted in [false, true] {
        let mut cut = Cut::new();
        if restarted {
            cut.happens(&Cuts::Restart { clean: false });
        }
        cut.happens(&Cuts::Look(1));
        cut.happens(&Cuts::Lines(1));
        cut.happens(&Cuts::CopyAndCut { unlucky: 1, looks: 1, restart: None });
        cut.happens(&Cuts::Look(1));
        cut.happens(&Cuts::Lose);
        assert_eq!(cut.finish(), (vec![], vec![]), "{restarted}");
    }
}

#[test]
fn what_begins_with_the_same_line_as_what_was_cut_before_is_no_copy_of_that() {
    let text = |of: char, lines: usize| (0..lines).map(|n| format!("{of}{n:039}\n")).collect::<String>();
    // Longer than the head and shorter than it.
    for (first, second) in [(50, 40), (40, 50), (50, 10), (10, 50)] {
        for restarted in [false, true] {
            let mut rig = rig(&["a"]);
            rig.write("a", "started\n");
            rig.poll();
            rig.write("a", text('a', first));
            rig.poll();
            rig.copy_and_truncate("a", "a.1");
            rig.poll();
            rig.pass_long();
            if restarted {
                rig.restart(true);
                rig.poll();
            }
            rig.take();
            rig.pass(10);
            // Nobody looks until it is cut again.
            rig.write("a", "started\n");
            rig.write("a", text('b', second));
            rig.copy_and_truncate("a", "a.2");
            rig.pass(10);
            rig.write("a", "started\n");
            let got = rig.take_polled();
            assert_eq!(got.len(), second + 2, "{first} {second} {restarted}: {got:?}");
        }
    }
}

#[test]
fn what_is_written_anew_after_the_same_line_is_read_whole_after_a_start() {
    let text = |of: char, lines: usize| (0..lines).map(|n| format!("{of}{n:039}\n")).collect::<String>();
    for (first, second) in [(50, 40), (50, 10), (10, 50)] {
        let mut rig = Rig::new(Options { turn_bytes: 8, ..Options::default() });
        rig.follow("a");
        rig.write("a", "started\n");
        let Step::Chunk(chunk) = rig.step(0) else { panic!("there is a line") };
        rig.tails[0].settle(chunk.piece, chunk.end);
        rig.options.turn_bytes = 256 << 10;
        rig.write("a", text('a', first));
        // That is on its way, and never safe.
        let Step::Chunk(_) = rig.step(0) else { panic!("there are lines") };
        rig.save();
        rig.restart(false);
        rig.pass(100);
        rig.copy_and_truncate("a", "a.1");
        rig.write("a", "started\n");
        rig.write("a", text('b', second));
        let got = rig.take_polled();
        assert_eq!(got.len(), first + 1 + second, "{first} {second}: {got:?}");
    }
}

#[test]
fn what_is_read_on_in_a_copy_that_is_shorter_than_the_head_is_read_on_there_after_another_start() {
    let text = |from: usize, to: usize| (from..to).map(|n| format!("{n:039}\n")).collect::<String>();
    let mut rig = Rig::new(Options { turn_bytes: 8, ..Options::default() });
    rig.follow("a");
    rig.write("a", "started\n");
    let Step::Chunk(chunk) = rig.step(0) else { panic!("there is a line") };
    rig.tails[0].settle(chunk.piece, chunk.end);
    rig.options.turn_bytes = 256 << 10;
    rig.write("a", text(0, 10));
    fs::copy(rig.path("a"), rig.path("a.1")).unwrap();
    rig.write("a.1", "");
    rig.write("a", text(10, 50));
    // What is known is the head of more than the copy has, and that the first line is safe.
    let Step::Chunk(_) = rig.step(0) else { panic!("there are lines") };
    rig.save();
    rig.restart(false);
    rig.pass(100);
    OpenOptions::new().write(true).truncate(true).open(rig.path("a")).unwrap();
    rig.write("a", "new\n");
    let Step::Chunk(chunk) = rig.step(0) else { panic!("there is the copy") };
    assert_eq!(chunk.lines.len(), 10);
    rig.save();
    rig.restart(false);
    let got = rig.take_polled();
    assert_eq!((got.len(), got[0].len(), &*got[10]), (11, 39, "new"), "{got:?}");
}

#[test]
fn a_copy_that_is_read_under_its_own_name_and_was_cut_between_two_looks_is_read_on() {
    // It is known as a file of its own from the beginning, looked at first, or found when the cut was noticed.
    for known in ["at once", "first", "later", "long after"] {
        for (lines, unread) in [(3, false), (3, true), (1_000, false), (1_000, true)] {
            let mut rig = rig(&["a.log"]);
            rig.write("a.log", (0..lines).map(|n| format!("line {n}\n")).collect::<String>());
            rig.poll();
            rig.save();
            rig.got.clear();
            rig.pass(500);
            if unread {
                rig.write("a.log", "more\n");
            }
            rig.copy_and_truncate("a.log", "a.log.1");
            rig.pass(10);
            rig.write("a.log", "new\n");
            rig.pass(500);
            if known.starts_with('l') {
                rig.poll();
                rig.pass(if known == "later" { 0 } else { 12_000 });
                rig.poll();
            }
            rig.follow("a.log.1");
            if known == "first" {
                rig.tails.reverse();
            }
            rig.pass_long();
            let mut got = rig.got.clone();
            got.sort();
            assert_eq!(got, if unread { vec!["more", "new"] } else { vec!["new"] }, "{known} {lines}");
        }
    }
}
