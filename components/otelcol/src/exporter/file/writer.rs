//! Files that messages are appended to, whole: what a full disk cut off is taken back before anything follows it.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use corten_component::Logger;
use corten_component::local_end::Taken;
use corten_files::io_error_text;
use corten_golang::time::{Layout, Time, Zone};
use corten_signal::Acks;

use super::whole::{End, Framing};

/// How much is gathered before it is written.
const GATHERED_BYTES_MAX: usize = 64 << 10;

/// How far the clocks of file systems lag behind.
pub(super) const CLOCK_TICK: Duration = Duration::from_millis(20);

/// How files are begun, and when they are put aside.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Manner {
    /// Whether a file that is there already goes on; otherwise it is emptied.
    pub(super) append: bool,
    /// Files that were written since then are the component's own, and go on in any case, where files are closed and opened
    /// again.
    pub(super) since: Option<SystemTime>,
    /// The permissions of folders that are made; where there are none, no folders are.
    pub(super) folders: Option<u32>,
    pub(super) rotation: Option<Rotation>,
    /// How messages stand in files.
    pub(super) framing: Framing,
    /// The folder below which senders choose the names, if they do.
    pub(super) chosen_below: Option<PathBuf>,
}

/// When a file is put aside, and how many of those that were are kept.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Rotation {
    pub(super) bytes_max: u64,
    /// How long they are kept; for ever, if it is zero.
    pub(super) age_max: Duration,
    /// How many are kept; all, if it is zero.
    pub(super) files_max: usize,
    pub(super) localtime: bool,
}

/// A file, and what is still to be written to it.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    manner: Manner,
    file: Option<File>,
    /// Whether it was open already.
    is_begun: bool,
    /// How long the file is, as far as it is known to be whole.
    len_bytes: u64,
    /// Whether what follows that length is to be cut off first.
    is_torn: bool,
    /// Whole messages.
    gathered: Vec<u8>,
    /// What is gathered, by signal.
    taken: Vec<Taken>,
    acks: Acks,
    logger: Logger,
}

impl Writer {
    pub(super) fn new(path: PathBuf, manner: Manner, logger: Logger) -> Self {
        Writer {
            path,
            manner,
            file: None,
            is_begun: false,
            len_bytes: 0,
            is_torn: false,
            gathered: Vec::new(),
            taken: Vec::new(),
            acks: Acks::NONE,
            logger,
        }
    }

    /// Whether everything was written.
    pub(super) fn is_clear(&self) -> bool {
        self.gathered.is_empty()
    }

    /// Opens the file and makes room for a message.
    ///
    /// # Errors
    ///
    /// Why that cannot be done now. Nothing is lost.
    pub(super) fn make_room(&mut self, bytes: usize) -> Result<(), Failure> {
        self.open()?;
        if let Some(rotation) = &self.manner.rotation {
            let bytes_max = rotation.bytes_max;
            if self.len_bytes + (self.gathered.len() + bytes) as u64 > bytes_max {
                self.flush()?;
                if self.len_bytes > 0 {
                    self.rotate()?;
                }
            }
        }
        if self.gathered.len() >= GATHERED_BYTES_MAX { self.flush() } else { Ok(()) }
    }

    /// Takes a message, for which there is room.
    pub(super) fn append(&mut self, message: &[u8], acks: Acks, taken: Taken) {
        self.gathered.extend_from_slice(message);
        self.acks.join(acks);
        match self.taken.iter_mut().find(|known| Arc::ptr_eq(known.end(), taken.end())) {
            Some(known) => known.join(taken),
            None => self.taken.push(taken),
        }
    }

    /// Whether enough is gathered to be written.
    pub(super) fn is_full(&self) -> bool {
        self.gathered.len() >= GATHERED_BYTES_MAX
    }

    /// Writes what is gathered.
    ///
    /// # Errors
    ///
    /// Why that cannot be done now. It is kept.
    pub(super) fn flush(&mut self) -> Result<(), Failure> {
        if self.gathered.is_empty() {
            return Ok(());
        }
        let written = self.write();
        if let Err(failure) = &written {
            self.taken.iter().for_each(|taken| taken.end().failed(&failure.why));
        }
        written
    }

    fn write(&mut self) -> Result<(), Failure> {
        self.open()?;
        let Some(file) = &mut self.file else { return Ok(()) };
        // Somebody else may have cut it off since.
        let actual = file.metadata().map_err(|error| failed("stat", &self.path, &error))?.len();
        if self.is_torn && actual > self.len_bytes {
            file.set_len(self.len_bytes).map_err(|error| failed("truncate", &self.path, &error))?;
        } else {
            self.len_bytes = actual;
        }
        self.is_torn = false;
        if let Err(error) = file.write_all(&self.gathered) {
            // What was written of it is taken back at once, or else before anything follows.
            self.is_torn = file.set_len(self.len_bytes).is_err();
            return Err(failed("write", &self.path, &error));
        }
        self.len_bytes += self.gathered.len() as u64;
        self.gathered.clear();
        self.gathered.shrink_to(GATHERED_BYTES_MAX);
        self.taken.drain(..).for_each(Taken::delivered);
        std::mem::replace(&mut self.acks, Acks::NONE).safe();
        Ok(())
    }

    /// Opens the file if it is not open.
    pub(super) fn open(&mut self) -> Result<(), Failure> {
        if self.file.is_some() {
            return Ok(());
        }
        if let (Some(mode), Some(folder)) = (self.manner.folders, self.path.parent()) {
            make_folders(folder, mode).map_err(|error| self.not_open("mkdir", folder, &error))?;
        }
        let file = create(&self.path).map_err(|error| self.not_open("open", &self.path, &error))?;
        let metadata = file.metadata().map_err(|error| failed("stat", &self.path, &error))?;
        let is_ours = |since| metadata.modified().is_ok_and(|at| at >= since);
        let goes_on = self.is_begun
            || self.manner.append
            || self.manner.rotation.is_some()
            || self.manner.since.is_some_and(is_ours);
        self.len_bytes = metadata.len();
        if !goes_on && metadata.is_file() {
            file.set_len(0).map_err(|error| failed("truncate", &self.path, &error))?;
            self.len_bytes = 0;
        }
        // What was written by this component is whole.
        let is_known = self.is_begun || self.manner.since.is_some_and(|since| is_ours(since + 2 * CLOCK_TICK));
        if metadata.is_file() && !is_known {
            self.mend(&file)?;
        }
        self.file = Some(file);
        self.is_begun = true;
        self.clean_up();
        Ok(())
    }

    /// Sees to it that what follows is not taken for a part of what the end of the process, or of the machine, cut off in the
    /// middle of a message.
    fn mend(&mut self, file: &File) -> Result<(), Failure> {
        // It may be that it can only be written.
        let Ok(end) = self.manner.framing.end(file, self.len_bytes) else { return Ok(()) };
        let path = self.path.display().to_string();
        match end {
            End::Whole => {}
            End::Torn(_) if self.manner.framing == Framing::Lines => {
                let mut file = file;
                file.write_all(b"\n").map_err(|error| failed("write", &self.path, &error))?;
                self.len_bytes += 1;
            }
            End::Torn(whole_bytes) => {
                let actual = file.metadata().map_err(|error| failed("stat", &self.path, &error))?.len();
                // Whoever else writes to it at this moment is not to lose anything.
                if actual == self.len_bytes {
                    let cut_bytes = actual - whole_bytes;
                    file.set_len(whole_bytes).map_err(|error| failed("truncate", &self.path, &error))?;
                    let fields = [("path", path.into()), ("bytes", cut_bytes.into())];
                    self.logger.warn("cut off a message that was written only in part", &fields);
                    self.len_bytes = whole_bytes;
                }
            }
            End::Foreign(whole_bytes) => {
                let fields = [("path", path.into()), ("offset", whole_bytes.into())];
                self.logger
                    .warn("the file holds something else than messages, and what follows may not be readable", &fields);
            }
        }
        Ok(())
    }

    /// Why a file or its folder could not be opened.
    fn not_open(&self, step: &str, path: &Path, error: &io::Error) -> Failure {
        let chosen_below = self.manner.chosen_below.as_deref();
        let is_of_name = chosen_below.is_some_and(|folder| is_of_name(&self.path, folder, error));
        Failure { is_of_name, ..failed(step, path, error) }
    }

    /// Puts the file aside under a name with the time, and begins another one.
    fn rotate(&mut self) -> Result<(), Failure> {
        let Some(rotation) = &self.manner.rotation else { return Ok(()) };
        self.file = None;
        // Two that are put aside within a millisecond must not have one name: the second would take the place of the first.
        let mut now = SystemTime::now();
        let mut name = aside(&self.path, now, rotation.localtime);
        while name.symlink_metadata().is_ok() {
            now += Duration::from_millis(1);
            name = aside(&self.path, now, rotation.localtime);
        }
        match std::fs::rename(&self.path, name) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed("rename", &self.path, &error)),
        }
        self.open()
    }

    /// Removes what was put aside long ago, or what is too much. What cannot be removed stays.
    fn clean_up(&self) {
        let Some(rotation) = &self.manner.rotation else { return };
        if rotation.files_max == 0 && rotation.age_max.is_zero() {
            return;
        }
        let mut files = put_aside(&self.path);
        files.sort_by(|a, b| b.cmp(a));
        let oldest = SystemTime::now().checked_sub(rotation.age_max).filter(|_| !rotation.age_max.is_zero());
        let oldest = oldest.and_then(|oldest| oldest.duration_since(UNIX_EPOCH).ok());
        for (at, (seconds, path)) in files.iter().enumerate() {
            let is_too_much = rotation.files_max > 0 && at >= rotation.files_max;
            let is_old = oldest.is_some_and(|oldest| *seconds < i64::try_from(oldest.as_secs()).unwrap_or(i64::MAX));
            if is_too_much || is_old {
                _ = std::fs::remove_file(path);
            }
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        // What it holds back then is said to be lost, and whoever keeps it sends it again.
        _ = self.flush();
    }
}

/// Why something was not written.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Failure {
    pub(super) why: String,
    /// Whether it is the name that a sender chose, so that nothing helps that is done for the others.
    pub(super) is_of_name: bool,
}

fn failed(step: &str, path: &Path, error: &io::Error) -> Failure {
    Failure { why: format!("{step} {}: {}", path.display(), io_error_text(error)), is_of_name: false }
}

/// Whether a file cannot be opened because of its name: it can never be one, or something stands there, or in the place of a
/// folder on the way, that is none, may not be written or leads nowhere. What is wrong with the folder that the configuration
/// names concerns all.
fn is_of_name(path: &Path, chosen_below: &Path, error: &io::Error) -> bool {
    use io::ErrorKind::{AlreadyExists, InvalidFilename, InvalidInput, IsADirectory, NotADirectory, PermissionDenied};
    let mut there = path.ancestors().take_while(|at| *at != chosen_below).filter(|at| at.symlink_metadata().is_ok());
    match error.kind() {
        InvalidFilename | InvalidInput => true,
        AlreadyExists | IsADirectory | NotADirectory | PermissionDenied => there.next().is_some(),
        // A link that leads to itself, or to nothing.
        _ => there.next().is_some_and(|at| at.is_symlink() && at.metadata().is_err()),
    }
}

#[cfg(unix)]
fn create(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    // It is read where that is allowed, to find what was cut off in the middle; a pipe may be written alone.
    let open = |read| OpenOptions::new().read(read).append(true).create(true).mode(0o644).open(path);
    if path.metadata().is_ok_and(|metadata| !metadata.is_file()) {
        open(false)
    } else {
        open(true).or_else(|_| open(false))
    }
}

#[cfg(not(unix))]
fn create(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).append(true).create(true).open(path)
}

#[cfg(unix)]
fn make_folders(folder: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    DirBuilder::new().recursive(true).mode(mode).create(folder)
}

#[cfg(not(unix))]
fn make_folders(folder: &Path, _: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).create(folder)
}

static ASIDE: LazyLock<Layout> = LazyLock::new(|| Layout::new("2006-01-02T15-04-05.000"));

/// Why files are put aside, as their names say it.
const REASON: &str = "-size";

/// The beginning of the names of what is put aside, and their end.
fn parts(path: &Path) -> (String, String) {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    match name.rfind('.') {
        Some(dot) => (format!("{}-", &name[..dot]), name[dot..].to_owned()),
        None => (format!("{name}-"), String::new()),
    }
}

fn aside(path: &Path, now: SystemTime, localtime: bool) -> PathBuf {
    let since = now.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut time = Time::utc(i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos());
    if localtime && let Ok(zone) = Zone::load("Local") {
        time = time.within(&zone);
    }
    let (prefix, extension) = parts(path);
    path.with_file_name(format!("{prefix}{}{REASON}{extension}", ASIDE.format(&time)))
}

/// What was put aside of a file, each with its time.
fn put_aside(path: &Path) -> Vec<(i64, PathBuf)> {
    let (prefix, extension) = parts(path);
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let of = |entry: std::fs::DirEntry| {
        let name = entry.file_name().into_string().ok()?;
        let time = name.strip_prefix(&prefix)?.strip_suffix(&extension)?;
        // The reference's names of former times had no reason.
        let time = time.strip_suffix(REASON).unwrap_or(time);
        let time = ASIDE.parse(time.as_bytes(), None).ok()?;
        Some((time.seconds, entry.path()))
    };
    entries.filter_map(|entry| of(entry.ok()?)).collect()
}

#[cfg(test)]
mod tests {
    use corten_coding::Coding;
    use corten_component::LocalEnd;
    use corten_component::log::LogSink;
    use corten_otlp::OtlpLogs;
    use corten_signal::Ledger;

    use super::*;

    fn taken() -> Taken {
        LocalEnd::new::<OtlpLogs>(&Ledger::new("otelcol.exporter.file.a"), "file").take(1, 1)
    }

    #[test]
    fn what_is_put_aside_has_the_time_in_its_name() {
        let now = UNIX_EPOCH + Duration::from_millis(1_478_284_200_045);
        for (path, want) in [
            ("/var/log/server.log", "/var/log/server-2016-11-04T18-30-00.045-size.log"),
            ("server.tar.gz", "server.tar-2016-11-04T18-30-00.045-size.gz"),
            ("/x/server", "/x/server-2016-11-04T18-30-00.045-size"),
        ] {
            assert_eq!(aside(Path::new(path), now, false), Path::new(want));
        }
    }

    fn writer(path: PathBuf, manner: Manner) -> Writer {
        Writer::new(path, manner, Logger::new(LogSink::memory().0))
    }

    fn manner(rotation: Option<Rotation>) -> Manner {
        Manner { append: false, since: None, folders: None, rotation, framing: Framing::Messages, chosen_below: None }
    }

    fn rotation() -> Rotation {
        Rotation { bytes_max: 10, age_max: Duration::ZERO, files_max: 0, localtime: false }
    }

    fn write(writer: &mut Writer, message: &str) {
        writer.make_room(message.len()).unwrap();
        writer.append(message.as_bytes(), Acks::NONE, taken());
        writer.flush().unwrap();
    }

    #[test]
    fn a_file_that_would_get_too_long_is_put_aside_between_messages() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut writer = writer(path.clone(), manner(Some(rotation())));
        for message in ["12345\n", "abc\n", "long message\n"] {
            write(&mut writer, message);
        }
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "long message\n");
        let files = put_aside(&path);
        assert_eq!(files.len(), 1);
        assert_eq!(std::fs::read_to_string(&files[0].1).unwrap(), "12345\nabc\n");
    }

    #[test]
    fn what_was_put_aside_long_ago_or_is_too_much_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let names = ["a-2016-11-04T18-30-00.045.json", "a-2017-11-04T18-30-00.045-size.json", "a-x.json", "b.json"];
        let left = |rotation| {
            names.iter().for_each(|name| std::fs::write(dir.path().join(name), "").unwrap());
            writer(path.clone(), manner(Some(rotation))).open().unwrap();
            names.map(|name| dir.path().join(name).exists())
        };
        assert_eq!(left(rotation()), [true, true, true, true]);
        assert_eq!(left(Rotation { files_max: 1, ..rotation() }), [false, true, true, true]);
        let days = |days: u64| Rotation { age_max: Duration::from_secs(86_400 * days), ..rotation() };
        assert_eq!(left(days(1)), [false, false, true, true]);
        assert_eq!(left(days(100_000)), [true, true, true, true]);
    }

    #[test]
    fn a_file_is_emptied_unless_it_is_to_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        for (manner, want) in [
            (manner(None), "new"),
            (Manner { append: true, ..manner(None) }, "oldnew"),
            (Manner { since: Some(UNIX_EPOCH), ..manner(None) }, "oldnew"),
        ] {
            std::fs::write(&path, "old").unwrap();
            write(&mut writer(path.clone(), manner), "new");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), want);
        }
    }

    /// Whole messages of a file.
    fn messages(path: &Path) -> Vec<Vec<u8>> {
        let bytes = std::fs::read(path).unwrap();
        let mut rest = &bytes[..];
        let mut messages = Vec::new();
        while !rest.is_empty() {
            let len = u32::from_be_bytes(rest[..4].try_into().unwrap()) as usize;
            messages.push(rest[4..4 + len].to_vec());
            rest = &rest[4 + len..];
        }
        messages
    }

    #[test]
    fn what_was_cut_off_by_the_end_of_the_process_at_any_byte_spoils_nothing_that_follows() {
        let proto = |text: &str| [&[0x0a, u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        let zstd = |text: &str| Coding::Zstd.pack(None, [text.as_bytes()]).unwrap();
        let framed = |message: &[u8]| [&u32::try_from(message.len()).unwrap().to_be_bytes()[..], message].concat();
        let long = Rotation { bytes_max: 1 << 20, ..rotation() };
        for (framing, pack, rotation) in [
            (Framing::Messages, &proto as &dyn Fn(&str) -> Vec<u8>, None),
            (Framing::Messages, &proto, Some(long.clone())),
            (Framing::Packed, &zstd, Some(long)),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("a");
            let manner = Manner { append: rotation.is_none(), framing, ..manner(rotation) };
            let [one, two, three] = ["one", "two, which is longer", "three"].map(pack);
            let before = framed(&one);
            let all = [&before[..], &framed(&two)].concat();
            for cut in before.len()..=all.len() {
                std::fs::write(&path, &all[..cut]).unwrap();
                let (sink, logged) = LogSink::memory();
                let mut writer = Writer::new(path.clone(), manner.clone(), Logger::new(sink));
                writer.make_room(100).unwrap();
                writer.append(&framed(&three), Acks::NONE, taken());
                writer.flush().unwrap();
                let want = if cut == all.len() { vec![&one, &two, &three] } else { vec![&one, &three] };
                assert_eq!(messages(&path).iter().collect::<Vec<_>>(), want, "{framing:?} {cut}");
                let logged = String::from_utf8(logged.lock().clone()).unwrap();
                let says =
                    format!("msg=\"cut off a message that was written only in part\" path={} bytes=", path.display());
                assert_eq!(logged.contains(&says), !matches!(cut - before.len(), 0) && cut < all.len(), "{logged}");
            }
        }
    }

    #[test]
    fn the_name_is_at_fault_only_below_the_folder_that_is_named() {
        use io::ErrorKind::{AlreadyExists, InvalidFilename, NotFound, PermissionDenied, StorageFull};
        let dir = tempfile::tempdir().unwrap();
        let below = dir.path();
        std::fs::create_dir(below.join("sub")).unwrap();
        std::fs::write(below.join("there"), "").unwrap();
        for (name, kind, want) in [
            // Nobody may make a file in the folder that is named.
            ("new", PermissionDenied, false),
            ("new/new", PermissionDenied, false),
            ("there", PermissionDenied, true),
            ("sub/new", PermissionDenied, true),
            ("there/new", AlreadyExists, true),
            ("new", InvalidFilename, true),
            ("there", StorageFull, false),
            ("sub/new", NotFound, false),
        ] {
            assert_eq!(is_of_name(&below.join(name), below, &kind.into()), want, "{name} {kind:?}");
        }
    }

    #[test]
    fn what_is_no_message_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        std::fs::write(&path, "{\"resourceLogs\":[]}\n").unwrap();
        write(&mut writer(path.clone(), Manner { append: true, ..manner(None) }), "new");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "{\"resourceLogs\":[]}\nnew");
    }

    #[test]
    fn files_put_aside_within_a_millisecond_do_not_take_the_place_of_each_other() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let mut writer = writer(path.clone(), manner(Some(rotation())));
        (0..50).for_each(|at| write(&mut writer, &format!("number {at:02}\n")));
        assert_eq!(put_aside(&path).len(), 49);
    }

    #[test]
    fn what_follows_a_line_that_was_cut_off_by_the_end_of_the_process_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.json");
        let lines = Manner { append: true, framing: Framing::Lines, ..manner(None) };
        for (before, want) in [("one\ntw", "one\ntw\nthree\n"), ("one\n", "one\nthree\n"), ("", "three\n")] {
            std::fs::write(&path, before).unwrap();
            write(&mut writer(path.clone(), lines.clone()), "three\n");
            assert_eq!(std::fs::read_to_string(&path).unwrap(), want);
        }
    }

    /// A full disk by the limit of a device: `/dev/full` takes nothing.
    #[cfg(target_os = "linux")]
    #[test]
    fn what_cannot_be_written_is_kept() {
        let mut writer = writer("/dev/full".into(), manner(None));
        writer.make_room(3).unwrap();
        writer.append(b"abc", Acks::NONE, taken());
        assert_eq!(writer.flush().unwrap_err().why, "write /dev/full: no space left on device");
        assert_eq!(writer.gathered, b"abc");
    }

    #[test]
    fn what_a_failed_write_left_behind_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a");
        let mut writer = writer(path.clone(), manner(None));
        write(&mut writer, "one\n");
        // As if the disk had become full in the middle of a message, and the cut had failed too.
        std::fs::write(&path, "one\ntw").unwrap();
        writer.is_torn = true;
        write(&mut writer, "two\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "one\ntwo\n");
        // Whoever empties the file from outside disturbs nothing.
        std::fs::write(&path, "").unwrap();
        write(&mut writer, "three\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
    }
}
