//! What the component does with a daemon that is played here, on a socket in the file system.

use std::sync::atomic::{AtomicBool, Ordering};

use corten_component::Definition;
use corten_config::Value;
use corten_config::decode::Decode as _;
use corten_signal::relabel::{Action, Rule};
use corten_testkit::{Unit, World, host, stays, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Notify;

use super::super::testing::{MOMENT, Sink, Then, debug_info, until_balance};
use super::*;

const DOCKER: Definition = Definition::of::<Docker>();

/// The containers of a daemon, all with the same log.
#[derive(Default)]
struct Fake {
    /// The stream, the second, and the text of each line.
    log: Mutex<Vec<(u8, i64, String)>>,
    changed: Notify,
    /// Ends all connections.
    cut: Notify,
    tty: AtomicBool,
    gone: AtomicBool,
    requests: Mutex<Vec<String>>,
}

impl Fake {
    fn start(world: &World) -> Arc<Self> {
        let path = world.path("docker.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let listener = UnixListener::bind(path).unwrap();
        let fake = Arc::new(Fake::default());
        let serving = Arc::clone(&fake);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let fake = Arc::clone(&serving);
                tokio::spawn(async move { fake.serve(stream).await });
            }
        });
        fake
    }

    fn write(&self, kind: u8, second: i64, text: &str) {
        self.log.lock().push((kind, second, text.to_owned()));
        self.changed.notify_waiters();
    }

    fn asked(&self, path: &str) -> usize {
        self.requests.lock().iter().filter(|request| request.starts_with(path)).count()
    }

    async fn serve(&self, mut stream: UnixStream) {
        loop {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read_u8().await {
                    Ok(byte) => head.push(byte),
                    Err(_) => return,
                }
            }
            let head = String::from_utf8(head).unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            self.requests.lock().push(path.clone());
            let answer = if self.gone.load(Ordering::Relaxed) {
                let body = r#"{"message":"No such container: c0ffee"}"#;
                format!("HTTP/1.1 404 Not Found\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            } else if path.ends_with("/json") {
                let tty = self.tty.load(Ordering::Relaxed);
                let body = format!(r#"{{"Config":{{"Tty":{tty}}},"State":{{"Running":true}}}}"#);
                format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
            } else {
                return self.follow(stream, &path).await;
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    }

    async fn follow(&self, mut stream: UnixStream, path: &str) {
        for wanted in ["follow=1", "stdout=1", "stderr=1", "timestamps=1"] {
            assert!(path.contains(wanted), "{path}");
        }
        let since: i64 = path.split("since=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
        stream.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
        let mut sent = 0;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let new: Vec<_> = self.log.lock()[sent..].to_vec();
            sent += new.len();
            for (kind, second, text) in new.into_iter().filter(|(_, second, _)| *second >= since) {
                let line = format!("1970-01-01T00:{:02}:{:02}.5Z {text}\n", second / 60, second % 60);
                let frame = match self.tty.load(Ordering::Relaxed) {
                    true => line.into_bytes(),
                    false => [&[kind, 0, 0, 0][..], &(line.len() as u32).to_be_bytes(), line.as_bytes()].concat(),
                };
                let chunk = [format!("{:x}\r\n", frame.len()).as_bytes(), &frame, b"\r\n"].concat();
                if stream.write_all(&chunk).await.is_err() {
                    return;
                }
            }
            tokio::select! {
                () = changed => {}
                () = self.cut.notified() => return,
            }
        }
    }
}

fn target(labels: &[(&str, &str)]) -> Value {
    Target::new(labels.iter().copied()).unwrap().to_value()
}

async fn start(world: World, more: &str, sink: &Sink, rules: Vec<Rule>) -> Unit {
    let socket = world.path("docker.sock").display().to_string();
    let body = format!(
        "host = \"unix://{socket}\"\nforward_to = [sink]\nrelabel_rules = rules\ntargets = [a, b, none]\n{more}"
    );
    let names = [
        ("sink", sink.value()),
        ("rules", RelabelRules(rules.into()).to_value()),
        ("a", target(&[(ID_LABEL, "c0ffee"), ("__meta_docker_port_private", "80"), ("app", "web")])),
        ("b", target(&[(ID_LABEL, "c0ffee"), ("__meta_docker_port_private", "81"), ("app", "web")])),
        ("none", target(&[("app", "no container")])),
    ];
    Unit::start_with(world, &DOCKER, &body, &names).await.unwrap()
}

fn stream_rule() -> Vec<Rule> {
    vec![Rule {
        source_labels: vec![STREAM_LABEL.to_owned()],
        separator: ";".to_owned(),
        regex: "(.*)".into(),
        modulus: 0,
        target_label: "stream".to_owned(),
        replacement: "$1".to_owned(),
        action: Action::Replace,
    }]
}

#[tokio::test]
async fn lines_of_a_container_come_once_with_their_time_and_labels() {
    let world = host("loki.source.docker.a");
    let (fake, sink) = (Fake::start(&world), Sink::new());
    fake.write(1, 60, "to stdout");
    let unit = start(world, "labels = {app = \"mine\", env = \"test\"}", &sink, stream_rule()).await;
    until("the first line arrives", || sink.shown().len() == 1).await;
    fake.write(2, 61, "to stderr");
    until("a line that is written later arrives", || sink.shown().len() == 2).await;
    let labels = |stream: &str| format!(r#"{{app="mine", env="test", stream="{stream}"}}"#);
    let expected = [
        (60_500_000_000, format!("{} to stdout", labels("stdout"))),
        (61_500_000_000, format!("{} to stderr", labels("stderr"))),
    ];
    assert_eq!(sink.entries(), expected);
    until_balance(&unit.world, "received 2, out 2").await;
    assert_eq!(unit.world.metric("loki_source_docker_target_entries_total"), Some(2.0));
    let info = debug_info(&unit.world).remove(0);
    for part in [" id=\"c0ffee\"", " lines=2", " last_line_at=\"1970-01-01T00:01:01.5Z\""] {
        assert!(info.contains(part), "{part}: {info}");
    }
    let looked = unit.world.host().debug_info.lock().clone().unwrap();
    let shown = |target: &Arc<dyn ShownTarget>| {
        let labels = target
            .labels()
            .map_or(String::new(), |labels| labels.iter().map(|(name, value)| format!(" {name}={value}")).collect());
        let last = target.last();
        let (read, error) = (if last.at.is_some() { " read" } else { "" }, last.error.unwrap_or_default());
        format!("{} {}{labels}{read}: {error}", target.state().as_str(), target.url())
    };
    let targets: Vec<String> = looked.targets().unwrap().targets().iter().map(shown).collect();
    assert_eq!(
        targets,
        [
            "up c0ffee app=mine env=test stream=stdout read: ",
            "dropped c0ffee: it is the same container as that of another target",
            "refused : the label __meta_docker_container_id names no container",
        ]
    );
    // Two targets of one container are one, and one without a container is none.
    assert_eq!((fake.asked("/containers/c0ffee/logs"), fake.asked("/containers/")), (1, 2));
}

#[tokio::test]
async fn reading_goes_on_after_the_daemon_and_after_a_restart() {
    let world = host("loki.source.docker.a");
    let (fake, sink) = (Fake::start(&world), Sink::new());
    for second in 60..65 {
        fake.write(1, second, &format!("line {second}"));
    }
    let mut unit = start(world, "", &sink, Vec::new()).await;
    until("all lines arrive", || sink.shown().len() == 5).await;
    // The daemon breaks the connection, and is asked again.
    fake.cut.notify_waiters();
    until("it is asked again", || fake.asked("/containers/c0ffee/logs") == 2).await;
    fake.write(1, 64, "of the same second");
    until("the new line arrives", || sink.shown().len() == 6).await;
    unit.drain().await;
    let Unit { world, .. } = unit;
    fake.write(1, 64, "written meanwhile");
    let _unit = start(world, "", &sink, Vec::new()).await;
    until("what was written meanwhile arrives", || sink.shown().len() == 7).await;
    stays("nothing comes twice", MOMENT, || sink.shown().len() == 7).await;
    assert!(fake.requests.lock().iter().any(|path| path.contains("since=63&")));
}

#[tokio::test]
async fn what_was_lost_on_its_way_is_read_again() {
    let world = host("loki.source.docker.a");
    let (fake, sink) = (Fake::start(&world), Sink::that(Then::Fail));
    fake.write(1, 60, "line");
    let unit = start(world, "", &sink, Vec::new()).await;
    until("a first attempt", || sink.batches() > 0).await;
    *sink.then.lock() = Then::Safe;
    until("a second one", || sink.batches() > 1).await;
    until_balance(&unit.world, "received 2, out 2").await;
}

#[tokio::test]
async fn a_terminal_has_one_stream() {
    let world = host("loki.source.docker.a");
    let (fake, sink) = (Fake::start(&world), Sink::new());
    fake.tty.store(true, Ordering::Relaxed);
    fake.write(0, 60, "from a terminal\r");
    fake.write(0, 60, "");
    fake.write(0, 61, "more");
    let _unit = start(world, "", &sink, stream_rule()).await;
    let labels = r#"{app="web", stream="stdout"}"#;
    until("lines arrive", || sink.shown().len() == 2).await;
    assert_eq!(sink.shown(), [format!("{labels} from a terminal"), format!("{labels} more")]);
}

#[tokio::test]
async fn a_container_that_is_gone_is_left_and_its_place_is_forgotten_with_its_target() {
    let world = host("loki.source.docker.a");
    let (fake, sink) = (Fake::start(&world), Sink::new());
    fake.write(1, 60, "line");
    let mut unit = start(world, "", &sink, Vec::new()).await;
    until("the line arrives", || sink.shown().len() == 1).await;
    fake.gone.store(true, Ordering::Relaxed);
    fake.cut.notify_waiters();
    until("it is left", || unit.world.logs().contains("container no longer exists, stopping tailer")).await;
    let cursors = unit.world.context::<Docker>().data_dir().join("cursors");
    until("its place is saved", || std::fs::read_to_string(&cursors).is_ok_and(|text| text.contains("c0ffee"))).await;
    let socket = unit.world.path("docker.sock").display().to_string();
    unit.update(&format!("host = \"unix://{socket}\"\nforward_to = [sink]\ntargets = []")).await.unwrap();
    until("its place is forgotten", || std::fs::read_to_string(&cursors).is_ok_and(|text| text.is_empty())).await;
}

#[tokio::test]
async fn a_daemon_that_is_not_there_is_told_of_and_tried_again() {
    let world = host("loki.source.docker.a");
    let sink = Sink::new();
    let unit = start(world, "", &sink, Vec::new()).await;
    until("it is told", || unit.world.logs().contains("error inspecting Docker container")).await;
    let fake = Fake::start(&unit.world);
    fake.write(1, 60, "line");
    until("the line arrives", || sink.shown().len() == 1).await;
}

#[tokio::test]
async fn other_containers_and_labels_are_taken_over_while_it_runs() {
    let world = host("loki.source.docker.a");
    let (fake, sink) = (Fake::start(&world), Sink::new());
    fake.write(1, 60, "line");
    let mut unit = start(world, "", &sink, Vec::new()).await;
    until("the line arrives", || sink.shown().len() == 1).await;
    let socket = unit.world.path("docker.sock").display().to_string();
    let body = format!("host = \"unix://{socket}\"\nforward_to = [sink]\ntargets = [a]\nlabels = {{new = \"1\"}}");
    unit.update(&body).await.unwrap();
    until("it is asked again", || fake.asked("/containers/c0ffee/logs") == 2).await;
    fake.write(1, 61, "later");
    until("the later line arrives", || sink.shown().len() == 2).await;
    assert_eq!(sink.shown()[1], r#"{app="web", new="1"} later"#);
}

#[tokio::test]
async fn addresses_are_checked() {
    for (address, wanted) in [
        ("docker", "unable to parse docker host `docker`"),
        ("unix://", "unable to parse docker host `unix://`"),
        ("http://:80", "unable to parse docker host `http://:80`"),
        ("npipe:////./pipe/docker", "docker host `npipe:////./pipe/docker`: protocol \"npipe\" is not supported"),
    ] {
        assert_eq!(Daemon::of(address).unwrap_err(), wanted);
        let body = format!("host = {address:?}\ntargets = []\nforward_to = []");
        let error = Unit::start(host("loki.source.docker.a"), &DOCKER, &body).await.unwrap_err();
        assert!(error.contains(wanted), "{error}");
    }
    assert_eq!(Daemon::of("tcp://localhost:2375/").unwrap().base, "http://localhost:2375");
    assert_eq!(Daemon::of("unix:///a/b").unwrap().socket, Some(PathBuf::from("/a/b")));
    let body = "host = \"unix:///a\"\ntargets = []\nforward_to = []\nrefresh_interval = \"0s\"";
    let error = Unit::start(host("loki.source.docker.a"), &DOCKER, body).await.unwrap_err();
    assert!(error.contains("refresh_interval must be positive"), "{error}");
}

#[test]
fn ids_that_would_lead_elsewhere_are_no_containers() {
    assert!(is_id("c0ffee") && is_id("my_app-1.x"));
    assert!(!is_id("") && !is_id("../images") && !is_id("a?b") && !is_id("a/b"));
}
