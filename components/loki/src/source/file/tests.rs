use std::fs::{self, OpenOptions};
use std::io::Write as _;

use corten_component::Definition;
use corten_component::targets::{ShownTarget, TargetState};
use corten_signal::{ConsumeError, Kind};
use corten_testkit::{Unit, World, host, stays, until};

use super::*;
use crate::source::testing::{Sink, Then, debug_info, until_balance};

const DEFINITION: Definition = Definition::of::<FileSource>();

fn world() -> World {
    host("loki.source.file.x")
}

/// What makes tests quick.
const QUICK: &str = "file_watch {\nmin_poll_frequency = \"10ms\"\nmax_poll_frequency = \"10ms\"\n}";

/// Arguments that read these paths in the world's folder, with these labels each.
fn reads(world: &World, paths: &[&str], labels: &str, more: &str) -> String {
    let target = |path: &&str| format!("{{ __path__ = {:?}, {labels} }}", world.path(path).to_str().unwrap());
    let targets: Vec<String> = paths.iter().map(target).collect();
    format!("targets = [{}]\nforward_to = [sink]\n{QUICK}\n{more}", targets.join(", "))
}

async fn start(world: &World, sink: &Sink, body: &str) -> Unit {
    Unit::start_with(world.clone(), &DEFINITION, body, &[("sink", sink.value())]).await.unwrap()
}

fn append(world: &World, name: &str, text: impl AsRef<[u8]>) {
    let mut file = OpenOptions::new().create(true).append(true).open(world.path(name)).unwrap();
    file.write_all(text.as_ref()).unwrap();
}

/// What was sent, with paths relative to the world's folder.
fn shown(world: &World, sink: &Sink) -> Vec<String> {
    let root = format!("{}/", world.path("").to_str().unwrap().trim_end_matches('/'));
    sink.shown().iter().map(|line| line.replace(&root, "")).collect()
}

async fn until_shown(world: &World, sink: &Sink, expected: &[&str]) {
    until(&format!("{expected:?} came"), || shown(world, sink).len() >= expected.len()).await;
    assert_eq!(shown(world, sink), expected);
}

#[tokio::test]
async fn lines_come_with_the_labels_of_their_target_and_the_name_of_their_file() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "a", "1\n2\r\n\nhalf");
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "job = \"j\", __meta_x = \"y\"", "")).await;
    let expected = [r#"{filename="a", job="j"} 1"#, r#"{filename="a", job="j"} 2"#, r#"{filename="a", job="j"} "#];
    until_shown(&world, &sink, &expected).await;
    append(&world, "a", " a line\n");
    until("the rest came", || sink.shown().len() == 4).await;
    assert_eq!(shown(&world, &sink)[3], r#"{filename="a", job="j"} half a line"#);
    // No two entries have the same time.
    let times: Vec<i64> = sink.entries().iter().map(|(time, _)| *time).collect();
    assert!(times.windows(2).all(|pair| pair[0] < pair[1]), "{times:?}");
    let path = world.path("a").to_str().unwrap().to_owned();
    let value = |name: &str| world.metrics().get(name, &[("path", &path)]);
    assert_eq!(value("loki_source_file_read_lines_total"), Some(4.0));
    assert_eq!(value("loki_source_file_read_bytes_total"), Some(18.0));
    assert_eq!(value("loki_source_file_file_bytes_total"), Some(18.0));
    assert_eq!(world.metric("loki_source_file_files_active_total"), Some(1.0));
    until_balance(&world, "received 4, out 4").await;
    let info = debug_info(&world).remove(0);
    assert!(info.contains(" read_offset=18 file_size=18 lag_bytes=0 read_lines=4 last_read_at="), "{info}");
    unit.drain().await;
    assert_eq!(value("loki_source_file_read_lines_total"), None);
    assert_eq!(world.metric("loki_source_file_files_active_total"), Some(0.0));
}

#[tokio::test]
async fn after_a_stop_reading_goes_on_where_it_was() {
    let (world, sink) = (world(), Sink::new());
    let backlog: String = (0..50_000).map(|n| format!("line {n} of many\n")).collect();
    append(&world, "a", &backlog);
    let body = reads(&world, &["a"], "", "");
    let mut unit = start(&world, &sink, &body).await;
    until("it is in the middle", || sink.batches() >= 1).await;
    unit.drain().await;
    let before = sink.shown().len();
    let mut unit = start(&world, &sink, &body).await;
    until("all is read", || sink.shown().len() >= 50_000).await;
    assert_eq!(sink.shown().len(), 50_000, "{before} before the stop");
    let numbers: Vec<usize> =
        sink.shown().iter().map(|line| line.split(' ').nth(2).unwrap().parse().unwrap()).collect();
    assert!(numbers.iter().copied().eq(0..50_000));
    unit.drain().await;
    assert_eq!(world.balance_of(Kind::LokiLog), "received 50000, out 50000");
}

#[tokio::test]
async fn other_labels_do_not_have_a_file_read_again() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "a", "1\n");
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "job = \"j\"", "")).await;
    until_shown(&world, &sink, &[r#"{filename="a", job="j"} 1"#]).await;
    unit.update(&reads(&world, &["a"], "job = \"k\"", "")).await.unwrap();
    append(&world, "a", "2\n");
    until("the second came", || sink.shown().len() >= 2).await;
    // Taken away and back.
    unit.update(&reads(&world, &[], "", "")).await.unwrap();
    until("it is closed", || world.metric("loki_source_file_files_active_total") == Some(0.0)).await;
    append(&world, "a", "3\n");
    unit.update(&reads(&world, &["a"], "job = \"k\"", "")).await.unwrap();
    until("the third came", || sink.shown().len() >= 3).await;
    // Read in another way, while it is open.
    unit.update(&reads(&world, &["a"], "job = \"k\"", "encoding = \"utf-8\"")).await.unwrap();
    append(&world, "a", "4\n");
    until("the fourth came", || sink.shown().len() >= 4).await;
    let lines = shown(&world, &sink);
    assert_eq!(lines[1..], [2, 3, 4].map(|n| format!(r#"{{filename="a", job="k"}} {n}"#)));
    unit.drain().await;
}

#[tokio::test]
async fn a_path_with_several_sets_of_labels_is_read_once_for_all() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "a", "1\n");
    let path = world.path("a").to_str().unwrap().to_owned();
    let body = format!(
        "targets = [{{ __path__ = {path:?}, job = \"j\" }}, {{ __path__ = {path:?}, job = \"k\" }}]\nforward_to = [sink]\n{QUICK}"
    );
    let mut unit = start(&world, &sink, &body).await;
    until_shown(&world, &sink, &[r#"{filename="a", job="j"} 1"#, r#"{filename="a", job="k"} 1"#]).await;
    unit.drain().await;
}

#[tokio::test]
async fn what_is_not_safe_is_read_again_after_a_stop() {
    let (world, sink) = (world(), Sink::that(Then::Keep));
    append(&world, "a", "1\n");
    let body = reads(&world, &["a"], "", "");
    let mut unit = start(&world, &sink, &body).await;
    until("it came", || sink.shown().len() == 1).await;
    *sink.then.lock() = Then::Fail;
    append(&world, "a", "2\n");
    until("the second came", || sink.shown().len() == 2).await;
    sink.settle();
    *sink.then.lock() = Then::Safe;
    // Only what was lost, as often as it was.
    until("the second came again", || sink.shown().len() >= 3).await;
    unit.drain().await;
    let mut unit = start(&world, &sink, &body).await;
    append(&world, "a", "3\n");
    until("the third came", || sink.shown().last().is_some_and(|line| line.ends_with(" 3"))).await;
    let came = shown(&world, &sink);
    assert!(came[1..came.len() - 1].iter().all(|line| line.ends_with(" 2")), "{came:?}");
    unit.drain().await;
}

#[tokio::test]
async fn what_is_not_taken_is_tried_again_and_what_is_refused_is_not() {
    let (world, sink) = (world(), Sink::new());
    let retry = ConsumeError::Retry { after: Some(Duration::from_millis(20)), reason: "not now".to_owned() };
    *sink.then.lock() = Then::Refuse(retry);
    append(&world, "a", "1\n");
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "", "")).await;
    until("it was refused", || world.logs().contains("err=\"not now\"")).await;
    *sink.then.lock() = Then::Safe;
    until_shown(&world, &sink, &[r#"{filename="a"} 1"#]).await;
    *sink.then.lock() = Then::Refuse(ConsumeError::Refused { reason: "never".to_owned() });
    append(&world, "a", "2\n");
    until("it was refused for good", || world.logs().contains("err=never")).await;
    *sink.then.lock() = Then::Safe;
    append(&world, "a", "3\n");
    until("the third came", || sink.shown().len() >= 2).await;
    assert_eq!(shown(&world, &sink)[1], r#"{filename="a"} 3"#);
    unit.drain().await;
    assert_eq!(world.balance_of(Kind::LokiLog), "received 3, out 2, dropped {refused: 1}");
}

#[tokio::test]
async fn a_sink_that_takes_nothing_keeps_one_file_from_being_read_to_its_end_and_not_the_stop() {
    let (world, sink) = (world(), Sink::that(Then::Keep));
    let line = format!("{}\n", "x".repeat(1023));
    append(&world, "a", line.repeat(20 << 10));
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "", "")).await;
    until("much is on its way", || sink.shown().len() >= 4 << 10).await;
    stays("not all is read", Duration::from_millis(200), || sink.shown().len() <= 9 << 10).await;
    // How far it is behind shows also when nothing is read of it.
    append(&world, "a", line.repeat(1 << 10));
    let lag = || {
        let info = debug_info(&world).remove(0);
        let lag = info.split(" lag_bytes=").nth(1).and_then(|rest| rest.split(' ').next()).map(str::parse::<u64>);
        lag.unwrap().unwrap()
    };
    until("the lag is known", || lag() >= (21 - 9) << 20).await;
    let held = || debug_info(&world).remove(0).contains(" held_up_since=");
    until("it is said to be held up", held).await;
    let why = "what was read is not taken yet by the components that it goes to";
    assert!(shown_targets(&world)[0].ends_with(why), "{:?}", shown_targets(&world));
    sink.settle();
    *sink.then.lock() = Then::Safe;
    until("all is read", || sink.shown().len() == 21 << 10).await;
    until("it goes on", || !held()).await;
    unit.drain().await;
    assert_eq!(world.balance_of(Kind::LokiLog), "received 21504, out 21504");
}

#[tokio::test]
async fn a_file_that_nothing_is_to_be_read_of_is_not_held_up_by_others() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "idle", "1\n");
    let mut unit = start(&world, &sink, &reads(&world, &["idle", "a", "b", "c", "d", "e"], "", "")).await;
    until_shown(&world, &sink, &[r#"{filename="idle"} 1"#]).await;
    *sink.then.lock() = Then::Keep;
    let line = format!("{}\n", "x".repeat(1023));
    // More than all files together may have on their way.
    for name in ["a", "b", "c", "d", "e"] {
        append(&world, name, line.repeat(6 << 10));
    }
    let held = || shown_targets(&world).iter().filter(|line| line.contains(" taken yet by the components")).count();
    until("the others are held up", || held() >= 5).await;
    let is_idle_held = || shown_targets(&world).iter().any(|line| line.contains(" idle ") && !line.ends_with(": "));
    stays("it is not held up", Duration::from_millis(2_500), || held() == 5 && !is_idle_held()).await;
    sink.settle();
    *sink.then.lock() = Then::Safe;
    until("all is read", || sink.shown().len() == 1 + 5 * (6 << 10)).await;
    unit.drain().await;
}

/// The targets with what became of them, sorted, with paths relative to the world's folder.
fn shown_targets(world: &World) -> Vec<String> {
    let root = format!("{}/", world.path("").to_str().unwrap().trim_end_matches('/'));
    let info = world.host().debug_info.lock().clone();
    let targets = info.as_ref().and_then(|info| Some(info.targets()?.targets())).unwrap_or_default();
    let shown = |target: &Arc<dyn ShownTarget>| {
        let labels = target
            .labels()
            .map_or(String::new(), |labels| labels.iter().map(|(name, value)| format!(" {name}={value}")).collect());
        let file = target.file().map_or(String::new(), |file| {
            format!(
                " at {} of {}, {:?} behind, {} lines",
                file.offset_bytes, file.size_bytes, file.behind_bytes, file.lines
            )
        });
        let last = target.last();
        let (read, error) = (if last.at.is_some() { " read" } else { "" }, last.error.unwrap_or_default());
        format!("{} {}{labels}{read}{file}: {error}", target.state().as_str(), target.url()).replace(&root, "")
    };
    let mut shown: Vec<String> = targets.iter().map(shown).collect();
    shown.sort();
    shown
}

#[tokio::test]
async fn targets_say_what_is_read_of_them_and_why_others_are_not() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "a", "1\n2\n");
    fs::create_dir(world.path("dir")).unwrap();
    let of = |name: &str| world.path(name).to_str().unwrap().to_owned();
    let targets = format!(
        "targets = [{{ __path__ = {:?}, __meta_x = \"y\", job = \"j\" }}, {{ __path__ = {:?} }}, {{ __path__ = {:?} }}, {{ job = \"no\" }}]",
        of("a"),
        of("dir"),
        of("absent"),
    );
    let body = |more: &str| format!("{targets}\nforward_to = [sink]\n{QUICK}\n{more}");
    let mut unit = start(&world, &sink, &body("")).await;
    let expected = [
        "down absent filename=absent: there is no such file, waiting for it",
        "down dir filename=dir: is a directory",
        "refused : the target has no label __path__",
        "up a filename=a job=j read at 4 of 4, Some(0) behind, 2 lines: ",
    ];
    until("all is known", || shown_targets(&world) == expected).await;
    // What was looked for and what was found are told apart.
    let info = world.host().debug_info.lock().clone().unwrap();
    let found = info.targets().unwrap().targets();
    let read = found.iter().find(|target| target.state() == TargetState::Up).unwrap();
    assert_eq!(read.discovered().get("__meta_x"), Some("y"));
    // A reload with what no file can be read with, and one that finds files itself.
    unit.update(&body("encoding = \"no-such\"")).await.unwrap();
    let refused = |shown: Vec<String>| shown.iter().filter(|line| line.contains("unsupported encoding")).count() == 3;
    until("none is read", || refused(shown_targets(&world))).await;
    for name in ["b.log", "c.log"] {
        append(&world, name, "1\n");
    }
    let pattern = format!(
        "targets = [{{ __path__ = {:?}, __path_exclude__ = \"**/c.*\" }}, {{ __path__ = \"[\" }}]",
        of("*.log")
    );
    let more = "file_match {\nenabled = true\nsync_period = \"20ms\"\n}\nencoding = \"utf-8\"";
    unit.update(&format!("{pattern}\nforward_to = [sink]\n{QUICK}\n{more}")).await.unwrap();
    let expected = [
        "dropped c.log: left out by __path_exclude__",
        "refused [: error getting paths of \"[\": syntax error in pattern",
        "up b.log filename=b.log read at 2 of 2, Some(0) behind, 1 lines: ",
    ];
    until("what was found is known", || shown_targets(&world) == expected).await;
    let info = debug_info(&world).remove(0);
    assert!(info.contains(" encoding=\"utf-8\" "), "{info}");
    unit.drain().await;
}

#[tokio::test]
async fn files_are_found_by_patterns_and_rotated_ones_are_not_read_again() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "a.log", "1\n");
    append(&world, "b.txt", "x\n");
    let more = "file_match {\nenabled = true\nsync_period = \"20ms\"\n}";
    let mut unit = start(&world, &sink, &reads(&world, &["*.log*"], "", more)).await;
    until_shown(&world, &sink, &[r#"{filename="a.log"} 1"#]).await;
    fs::rename(world.path("a.log"), world.path("a.log.1")).unwrap();
    append(&world, "a.log", "2\n");
    append(&world, "c.log", "3\n");
    until("all came", || sink.shown().len() >= 3).await;
    let mut lines = shown(&world, &sink);
    lines.sort();
    assert_eq!(lines, [r#"{filename="a.log"} 1"#, r#"{filename="a.log"} 2"#, r#"{filename="c.log"} 3"#]);
    unit.drain().await;
}

#[cfg(unix)]
#[tokio::test]
async fn what_may_not_be_read_is_the_components_health_until_it_may() {
    let (world, sink) = (world(), Sink::new());
    fs::create_dir(world.path("a")).unwrap();
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "", "")).await;
    let expected = format!("unhealthy: failed to read {}: is a directory", world.path("a").display());
    until("health says so", || world.health_text() == expected).await;
    fs::remove_dir(world.path("a")).unwrap();
    append(&world, "a", "1\n");
    until_shown(&world, &sink, &[r#"{filename="a"} 1"#]).await;
    until("it is well", || world.health_text() == "healthy: component evaluated").await;
    unit.drain().await;
}

#[tokio::test]
async fn arguments_that_cannot_be_are_refused_and_an_unknown_encoding_is_health() {
    let (world, sink) = (world(), Sink::new());
    for (more, error) in [
        ("on_positions_file_error = \"x\"", "invalid positions_error"),
        ("file_match {\nenabled = true\nsync_period = \"0s\"\n}", "sync_period must be greater than 0"),
    ] {
        let body = reads(&world, &["a"], "", more);
        let refused = Unit::start_with(world.clone(), &DEFINITION, &body, &[("sink", sink.value())]).await;
        assert!(refused.as_ref().is_err_and(|text| !text.is_empty()), "{error}: {refused:?}");
    }
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "", "encoding = \"utf-9\"")).await;
    until("health says so", || world.health_text() == "unhealthy: unsupported encoding \"utf-9\"").await;
    unit.drain().await;
}

#[tokio::test]
async fn a_broken_positions_file_of_the_reference_is_refused_and_a_good_one_is_taken_over() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "a", "1\n2\n");
    world.write("loki.source.file.x/positions.yml", "positions: [");
    let body = reads(&world, &["a"], "job = \"j\"", "");
    let refused = Unit::start_with(world.clone(), &DEFINITION, &body, &[("sink", sink.value())]).await.unwrap_err();
    assert!(refused.contains("invalid yaml positions file"), "{refused}");
    let path = world.path("a").display().to_string();
    let yaml = format!("positions:\n  ? path: {path}\n    labels: '{{job=\"j\"}}'\n  : \"2\"\n");
    world.write("loki.source.file.x/positions.yml", yaml);
    let mut unit = start(&world, &sink, &body).await;
    until_shown(&world, &sink, &[r#"{filename="a", job="j"} 2"#]).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_thousand_reloads_leave_nothing_behind() {
    let (world, sink) = (world(), Sink::new());
    append(&world, "a", "1\n");
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "n = \"0\"", "")).await;
    for n in 1..=1_000 {
        unit.update(&reads(&world, &["a"], &format!("n = \"{n}\""), "")).await.unwrap();
    }
    append(&world, "a", "2\n");
    until("the last came", || sink.shown().len() >= 2).await;
    assert_eq!(sink.shown().len(), 2);
    unit.drain().await;
    let tasks = || tokio::runtime::Handle::current().metrics().num_alive_tasks();
    until("the last task is gone", || tasks() == 0).await;
}

#[tokio::test]
async fn compressed_files_are_read_once() {
    let (world, sink) = (world(), Sink::new());
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(b"1\n2").unwrap();
    world.write("a.gz", encoder.finish().unwrap());
    let body = reads(&world, &["a.gz"], "", "decompression {\nenabled = true\nformat = \"gz\"\n}");
    let mut unit = start(&world, &sink, &body).await;
    until_shown(&world, &sink, &[r#"{filename="a.gz"} 1"#, r#"{filename="a.gz"} 2"#]).await;
    unit.drain().await;
    let mut unit = start(&world, &sink, &body).await;
    stays("it is not read again", Duration::from_millis(200), || sink.shown().len() == 2).await;
    unit.drain().await;
}

#[tokio::test]
async fn a_file_that_nothing_happens_to_is_still_read_when_something_does() {
    let (world, sink) = (world(), Sink::new());
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "", "")).await;
    until("it is missed", || world.logs().contains("msg=\"file does not exist, waiting for it\"")).await;
    append(&world, "a", "1\n");
    until_shown(&world, &sink, &[r#"{filename="a"} 1"#]).await;
    for n in 2..6 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if n == 4 {
            fs::rename(world.path("a"), world.path("a.1")).unwrap();
        }
        append(&world, "a", format!("{n}\n"));
        until("it came", || sink.shown().len() == n).await;
    }
    unit.drain().await;
}

#[tokio::test]
async fn a_line_of_ten_megabytes_and_any_bytes_are_lines_like_others() {
    let (world, sink) = (world(), Sink::new());
    // Of several bytes a character, and of none.
    let long = "\u{e4}\0".repeat(4 << 20);
    append(&world, "a", &long);
    let mut unit = start(&world, &sink, &reads(&world, &["a"], "", "")).await;
    append(&world, "a", b"\n\0\n\xff\xfe\n");
    until("all came", || sink.shown().len() == 3).await;
    let lines = shown(&world, &sink);
    assert!(lines[0] == format!("{{filename=\"a\"}} {long}"));
    assert_eq!(lines[1..], ["{filename=\"a\"} \0", "{filename=\"a\"} \u{fffd}\u{fffd}"]);
    unit.drain().await;
}
