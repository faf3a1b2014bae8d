//! `loki.source.file` and `local.file_match`: what happens to files, done to files.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::time::{Duration, SystemTime};

use corten_component::Definition;
use corten_loki::COMPONENTS;
use corten_signal::ConsumeError;
use corten_testkit::{LogsSink, Unit, World, host, stays, until};
use flate2::Compression;
use flate2::write::GzEncoder;

/// The id of the component in these tests.
const ID: &str = "loki.source.file.x";

/// What makes tests quick.
const QUICK: &str = "file_watch {\nmin_poll_frequency = \"10ms\"\nmax_poll_frequency = \"10ms\"\n}";

/// The targets are patterns.
const PATTERNS: &str = "file_match {\nenabled = true\nsync_period = \"20ms\"\n}";

/// The files are compressed.
const PACKED: &str = "decompression {\nenabled = true\nformat = \"gz\"\n}";

/// Long enough that all that could be read was read: several looks at each file.
const WHILE: Duration = Duration::from_millis(300);

/// A component that reads files, and what it sends to.
struct Rig {
    world: World,
    sink: LogsSink,
    unit: Option<Unit>,
    body: String,
}

impl Rig {
    /// Nothing is read yet.
    fn new(path: &str, more: &str) -> Self {
        let world = host(ID);
        let path = world.path(path).to_str().unwrap().to_owned();
        let body = format!("targets = [{{ __path__ = {path:?} }}]\nforward_to = [sink]\n{QUICK}\n{more}");
        Rig { world, sink: LogsSink::default(), unit: None, body }
    }

    async fn start(&mut self) {
        let definition = COMPONENTS.iter().find(|definition: &&Definition| definition.name == "loki.source.file");
        let values = [("sink", self.sink.value())];
        let unit = Unit::start_with(self.world.clone(), definition.unwrap(), &self.body, &values).await;
        self.unit = Some(unit.unwrap());
    }

    async fn stop(&mut self) {
        if let Some(mut unit) = self.unit.take() {
            unit.drain().await;
            unit.world.balance();
        }
    }

    fn append(&self, name: &str, text: impl AsRef<[u8]>) {
        let mut file = OpenOptions::new().create(true).append(true).open(self.world.path(name)).unwrap();
        file.write_all(text.as_ref()).unwrap();
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.world.path(from), self.world.path(to)).unwrap();
    }

    /// Cuts a file in place.
    fn cut(&self, name: &str) {
        OpenOptions::new().write(true).open(self.world.path(name)).unwrap().set_len(0).unwrap();
    }

    /// Copies over whatever stands there, and cuts.
    fn copy_and_cut(&self, from: &str, to: &str) {
        fs::copy(self.world.path(from), self.world.path(to)).unwrap();
        self.cut(from);
    }

    fn lines(&self) -> Vec<String> {
        self.sink.texts()
    }

    /// Waits until these lines came, and a while longer, and that no others did. In any order, each as often as given.
    async fn expect(&self, lines: &[&str]) {
        let mut expected = lines.to_vec();
        expected.sort_unstable();
        let come = || {
            let mut come = self.lines();
            come.sort_unstable();
            come
        };
        until(&format!("{lines:?} came"), || self.sink.len() >= lines.len()).await;
        assert_eq!(come(), expected);
        stays("nothing comes twice", WHILE, || self.sink.len() == lines.len()).await;
    }
}

fn numbered(numbers: std::ops::Range<usize>) -> String {
    numbers.map(|number| format!("line {number} of many\n")).collect()
}

fn packed(text: impl AsRef<[u8]>) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_ref()).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn a_file_that_loses_its_name_and_gets_it_back_goes_on() {
    let mut rig = Rig::new("a", "");
    rig.append("a", "1\n");
    rig.start().await;
    rig.expect(&["1"]).await;
    rig.rename("a", "b");
    let missing = || rig.world.metric("loki_source_file_files_active_total") == Some(0.0);
    until("the file is missed", missing).await;
    rig.append("b", "2\n");
    rig.expect(&["1", "2"]).await;
    rig.rename("b", "a");
    rig.append("a", "3\n");
    rig.expect(&["1", "2", "3"]).await;
    rig.append("a", "4\n");
    rig.expect(&["1", "2", "3", "4"]).await;
    rig.stop().await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_link_that_leads_to_and_fro_has_nothing_read_twice() {
    let mut rig = Rig::new("link", "");
    let lead_to = |rig: &Rig, name: &str| {
        std::os::unix::fs::symlink(rig.world.path(name), rig.world.path("new")).unwrap();
        rig.rename("new", "link");
        // A link is looked at only from time to time while its file is quiet.
        rig.append(if name == "a" { "b" } else { "a" }, "end\n");
    };
    rig.append("a", "a1\n");
    rig.append("b", "b1\n");
    std::os::unix::fs::symlink(rig.world.path("a"), rig.world.path("link")).unwrap();
    rig.start().await;
    rig.expect(&["a1"]).await;
    lead_to(&rig, "b");
    rig.expect(&["a1", "end", "b1"]).await;
    lead_to(&rig, "a");
    rig.append("a", "a2\n");
    rig.expect(&["a1", "end", "b1", "end", "a2"]).await;
    rig.append("a", "a3\n");
    rig.expect(&["a1", "end", "b1", "end", "a2", "a3"]).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_line_of_any_length_comes_and_what_stands_behind_it() {
    // The lengths around which one turn of reading more is needed, and those at which many turns end.
    for turns in [1, 2, 15, 16, 17, 31, 32, 33] {
        for more in [0, 100_000] {
            let mut rig = Rig::new("a", "");
            let line = "a".repeat(turns * (256 << 10) - 200_000 + more);
            rig.append("a", format!("1\n{line}\n2\n"));
            rig.start().await;
            until(&format!("a line of {} bytes came", line.len()), || rig.sink.len() == 3).await;
            let lines = rig.lines();
            assert!(lines[0] == "1" && lines[1] == line && lines[2] == "2");
            rig.stop().await;
        }
    }
}

#[tokio::test]
async fn a_hole_larger_than_any_line_may_be_does_not_stop_what_stands_behind_it() {
    let mut rig = Rig::new("a", "");
    rig.append("a", "1\n");
    let mut file = OpenOptions::new().write(true).open(rig.world.path("a")).unwrap();
    file.seek(SeekFrom::Start(150 << 20)).unwrap();
    file.write_all(b"2\n").unwrap();
    rig.start().await;
    until("all came", || rig.lines().last().is_some_and(|line| line.ends_with('2'))).await;
    let lines = rig.lines();
    assert_eq!(lines[0], "1");
    assert_eq!(lines[1..].iter().map(String::len).sum::<usize>(), (150 << 20) - 2 + 1);
    rig.stop().await;
}

#[tokio::test]
async fn what_is_cut_while_nothing_is_taken_is_read_in_the_copy() {
    let mut rig = Rig::new("a.log", "");
    let text = numbered(0..200_000);
    rig.append("a.log", &text);
    let retry = ConsumeError::Retry { after: Some(Duration::from_secs(1)), reason: "not now".to_owned() };
    rig.sink.answer_with(Some(retry));
    rig.start().await;
    until("nothing is taken", || rig.world.logs().contains("not now")).await;
    rig.copy_and_cut("a.log", "a.log.1");
    rig.append("a.log", "last\n");
    // Longer than the clocks of file systems are believed to differ.
    tokio::time::sleep(Duration::from_secs(4)).await;
    rig.sink.answer_with(None);
    until("all came", || rig.sink.len() > 200_000).await;
    stays("nothing comes twice", WHILE, || rig.sink.len() == 200_001).await;
    let lines = rig.lines();
    assert!(lines[..200_000].iter().map(|line| format!("{line}\n")).collect::<String>() == text);
    assert_eq!(lines[200_000], "last");
    rig.stop().await;
}

#[tokio::test]
async fn copies_that_take_the_place_of_copies_are_read_like_the_first() {
    let mut rig = Rig::new("a.log", "");
    rig.start().await;
    let mut expected = Vec::new();
    for round in 0..5 {
        rig.append("a.log", format!("{round} seen\n"));
        expected.push(format!("{round} seen"));
        until("it came", || rig.sink.len() == expected.len()).await;
        // Nobody looks in between.
        rig.append("a.log", format!("{round} not seen, and not in time\n"));
        rig.copy_and_cut("a.log", "a.log.1");
        expected.push(format!("{round} not seen, and not in time"));
        until("what was in the copy came", || rig.sink.len() == expected.len()).await;
        let lines: Vec<&str> = expected.iter().map(String::as_str).collect();
        rig.expect(&lines).await;
    }
    assert_eq!(rig.lines(), expected);
    rig.stop().await;
}

#[tokio::test]
async fn what_was_written_copied_and_cut_between_two_looks_is_read_in_the_copy() {
    let mut rig = Rig::new("a.log", "");
    rig.append("a.log", "0\n");
    rig.start().await;
    rig.expect(&["0"]).await;
    rig.copy_and_cut("a.log", "a.log.1");
    let cut = || rig.world.metric("corten_loki_source_file_truncations_total") == Some(1.0);
    until("the cut is noticed", cut).await;
    rig.append("a.log", "1\n");
    rig.copy_and_cut("a.log", "a.log.1");
    rig.expect(&["0", "1"]).await;
    rig.append("a.log", "2\n");
    rig.rename("a.log.1", "a.log.2");
    rig.copy_and_cut("a.log", "a.log.1");
    rig.append("a.log", "3\n");
    rig.expect(&["0", "1", "2", "3"]).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_copy_that_the_pattern_finds_while_it_is_made_is_not_read_again() {
    let mut rig = Rig::new("a.log*", PATTERNS);
    let text = numbered(0..1_000);
    rig.append("a.log", &text);
    rig.start().await;
    until("all came", || rig.sink.len() == 1_000).await;
    let (first, rest) = text.as_bytes().split_at(text.len() / 2);
    rig.append("a.log.1", first);
    // A copy that is found when the file is cut already is read as a file of its own.
    let is_found = || {
        let info = rig.world.host().debug_info.lock().clone();
        info.is_some_and(|info| format!("{:?}", info.debug_info()).contains("a.log.1"))
    };
    until("the copy is found", is_found).await;
    stays("half a copy is not read", WHILE, || rig.sink.len() == 1_000).await;
    rig.append("a.log.1", rest);
    stays("a copy is not read", WHILE, || rig.sink.len() == 1_000).await;
    rig.append("a.log", "more\n");
    rig.append("a.log.1", "more\n");
    rig.cut("a.log");
    until("the rest came", || rig.sink.len() == 1_001).await;
    rig.append("a.log", "new\n");
    until("what came after it came", || rig.sink.len() == 1_002).await;
    stays("nothing comes twice", WHILE, || rig.sink.len() == 1_002).await;
    rig.stop().await;
}

#[tokio::test]
async fn all_that_was_rotated_while_nobody_looked_is_read_however_often_it_was() {
    let mut rig = Rig::new("a.log", "");
    rig.append("a.log", "0\n");
    rig.start().await;
    rig.expect(&["0"]).await;
    rig.stop().await;
    let mut expected = vec!["0".to_owned()];
    for round in 1..=20 {
        for number in (0..round).rev() {
            let name = |number: usize| if number == 0 { "a.log".to_owned() } else { format!("a.log.{number}") };
            rig.rename(&name(number), &name(number + 1));
        }
        rig.append("a.log", format!("{round}\n"));
        // Their times say in which order they were written, and clocks of file systems are coarse.
        let written = SystemTime::now() + Duration::from_millis(round as u64);
        OpenOptions::new().write(true).open(rig.world.path("a.log")).unwrap().set_modified(written).unwrap();
        expected.push(round.to_string());
    }
    rig.start().await;
    // Those that lost the name are read for a while on, and no more than some at a time.
    until("all came", || rig.sink.len() >= expected.len()).await;
    assert_eq!(rig.lines(), expected);
    rig.stop().await;
}

#[tokio::test]
async fn a_compressed_file_that_grows_is_read_on_and_another_content_from_its_beginning() {
    let mut rig = Rig::new("a.gz", PACKED);
    rig.append("a.gz", packed("1\n2\n"));
    rig.start().await;
    rig.expect(&["1", "2"]).await;
    rig.append("a.gz", packed("3\n"));
    rig.expect(&["1", "2", "3"]).await;
    rig.stop().await;
    rig.append("a.gz", packed("4\n"));
    rig.start().await;
    rig.expect(&["1", "2", "3", "4"]).await;
    // In place: the file keeps its number.
    fs::write(rig.world.path("a.gz"), packed("new 1\nnew 2\nnew 3\nnew 4\nnew 5\n")).unwrap();
    let all = ["1", "2", "3", "4", "new 1", "new 2", "new 3", "new 4", "new 5"];
    rig.expect(&all).await;
    rig.stop().await;
    fs::write(rig.world.path("a.gz"), packed("x\n")).unwrap();
    rig.start().await;
    rig.expect(&[&all[..], &["x"]].concat()).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_compressed_file_that_is_renamed_while_it_is_read_goes_on_under_its_new_name() {
    let mut rig = Rig::new("*.gz", &format!("{PACKED}\n{PATTERNS}"));
    rig.append("1.gz", packed(numbered(0..400_000)));
    rig.sink.keep_acks();
    rig.start().await;
    until("some came", || !rig.sink.is_empty()).await;
    rig.rename("1.gz", "2.gz");
    let end = tokio::time::Instant::now() + Duration::from_secs(2);
    while tokio::time::Instant::now() < end {
        rig.sink.settle(true);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    until("all came", || {
        rig.sink.settle(true);
        rig.sink.len() >= 400_000
    })
    .await;
    rig.sink.settle(true);
    stays("nothing comes twice", WHILE, || rig.sink.len() == 400_000).await;
    rig.stop().await;
}

#[tokio::test]
async fn a_file_that_is_made_after_it_was_missed_is_read_from_its_beginning() {
    let mut rig = Rig::new("a", "tail_from_end = true");
    rig.start().await;
    until("it is missed", || rig.world.logs().contains("file does not exist, waiting for it")).await;
    rig.append("a", "1\n2\n");
    rig.expect(&["1", "2"]).await;
    rig.stop().await;
}

/// Whether this process is one that permissions mean something to.
#[cfg(unix)]
fn is_bound_by_permissions(rig: &Rig) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    rig.append("probe", "");
    fs::set_permissions(rig.world.path("probe"), fs::Permissions::from_mode(0o0)).unwrap();
    File::open(rig.world.path("probe")).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied)
}

#[cfg(unix)]
#[tokio::test]
async fn a_folder_that_may_not_be_read_is_the_components_health_until_it_may() {
    use std::os::unix::fs::PermissionsExt as _;
    let mut rig = Rig::new("folder/*.log", PATTERNS);
    if !is_bound_by_permissions(&rig) {
        let _ = writeln!(io::stderr(), "not run: permissions mean nothing to this user");
        return;
    }
    let folder = rig.world.path("folder");
    fs::create_dir(&folder).unwrap();
    rig.append("folder/a.log", "1\n");
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o0)).unwrap();
    rig.start().await;
    until("health says so", || rig.world.health_text().contains("permission denied")).await;
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
    rig.expect(&["1"]).await;
    until("it is well", || rig.world.health_text() == "healthy: component evaluated").await;
    rig.stop().await;
}
