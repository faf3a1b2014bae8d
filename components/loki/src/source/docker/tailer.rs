//! One container.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use corten_component::Stop;
use corten_net::{Body, ResponseBody};
use corten_signal::EntriesBuilder;
use corten_signal::ledger::Row;
use corten_signal::target::Target;
use corten_wire::docker_stream::{DockerLines, Event, Output, rfc3339_ns};
use http::{Request, Response, StatusCode};
use tokio::sync::watch;

use super::super::cursors::key;
use super::super::feed::{Feed, Sent};
use super::{Connection, Container, ContainerInfo, Settings, Shared};

/// How long after a stream ended the container is looked at again.
const LOOK_EVERY: Duration = if cfg!(test) { Duration::from_millis(50) } else { Duration::from_secs(5) };

/// How long lines wait for others to come with them.
const JOIN_WAIT: Duration = Duration::from_millis(20);

/// How often what became of lines is looked at while none come.
const IDLE_LOOK: Duration = Duration::from_millis(500);

/// Lines and bytes that are handed on together, about.
const BATCH_LINES: usize = 2048;
const BATCH_BYTES: usize = 1 << 20;

/// The largest description of a container.
const INSPECT_BYTES_MAX: usize = 8 << 20;

/// Lines of the two outputs are written by two writers: one may be a little behind the other's time. As long as this, in seconds,
/// before the last time is looked at again after a start.
const OVERLAP_SECONDS: i64 = 1;

/// How far a container's log was read: the second from which the daemon is asked for it, how many of the lines from then on were
/// read, and the last time among them. The daemon gives the same lines in the same order each time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    since: i64,
    seen: u64,
    last_ns: i64,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.since, self.seen, self.last_ns)
    }
}

impl FromStr for Place {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut words = text.split(' ');
        let since = words.next().unwrap_or_default().parse().map_err(|_| ())?;
        // The reference notes the second alone.
        let Some(seen) = words.next() else { return Ok(Place { since, ..Place::default() }) };
        let seen = seen.parse().map_err(|_| ())?;
        let last_ns = words.next().ok_or(())?.parse().map_err(|_| ())?;
        if words.next().is_some() { Err(()) } else { Ok(Place { since, seen, last_ns }) }
    }
}

/// Counts lines by the second of their time, and says which of them are not new.
#[derive(Debug, Default)]
struct Reading {
    seconds: BTreeMap<i64, u64>,
    last_ns: i64,
    /// What was read before this connection.
    before: Place,
    /// Lines that came so far.
    came: u64,
}

impl Reading {
    fn from(before: Place) -> Self {
        Reading { before, last_ns: before.last_ns, ..Self::default() }
    }

    /// A line came; whether it is new.
    fn is_new(&mut self, time_ns: i64) -> bool {
        let second = time_ns.div_euclid(1_000_000_000);
        *self.seconds.entry(second).or_default() += 1;
        self.came += 1;
        self.last_ns = self.last_ns.max(time_ns);
        let keep_from = self.last_ns.div_euclid(1_000_000_000) - OVERLAP_SECONDS;
        self.seconds = self.seconds.split_off(&keep_from);
        // What is later than all that was read is new, also where lines are missing because the log was rotated.
        let is_old = self.came <= self.before.seen && time_ns <= self.before.last_ns;
        if !is_old {
            self.before.seen = 0;
        }
        !is_old
    }

    /// The place behind the last line.
    fn place(&self) -> Place {
        let since = self.last_ns.div_euclid(1_000_000_000) - OVERLAP_SECONDS;
        let since = since.max(self.before.since);
        Place { since, seen: self.seconds.range(since..).map(|(_, count)| count).sum(), last_ns: self.last_ns }
    }
}

/// Why reading of a stream ended.
enum Ended {
    Stopped,
    /// Something was lost behind: it is read again after this time.
    Again(Duration),
    /// The daemon ended it, or it broke.
    Closed(Option<String>),
}

/// Reads the log of one container.
pub(super) struct Tailer {
    container: Container,
    connection: Arc<Connection>,
    shared: Arc<Shared>,
    settings: watch::Receiver<Arc<Settings>>,
    feed: Feed<Place>,
    start: Place,
    /// When the last line came, in seconds since the Unix epoch.
    last_line: i64,
    told: Option<String>,
    info: Arc<ContainerInfo>,
    /// Lines that are left out, until they are counted.
    dropped: Dropped,
}

/// How many lines are left out because they cannot be read.
#[derive(Debug, Default)]
struct Dropped {
    no_time: usize,
    too_long: usize,
}

impl Dropped {
    fn count(&mut self, row: &Row) {
        let Dropped { no_time, too_long } = std::mem::take(self);
        if no_time + too_long > 0 {
            row.received(no_time + too_long);
            row.dropped("no timestamp", no_time);
            row.dropped("line too long", too_long);
        }
    }
}

impl Tailer {
    pub(super) fn new(
        container: Container,
        connection: Arc<Connection>,
        shared: Arc<Shared>,
        settings: watch::Receiver<Arc<Settings>>,
    ) -> Self {
        let start = {
            let cursors = shared.cursors.lock();
            let known = cursors.get(&key(&container.id, ""));
            let known = known.or_else(|| cursors.get(&key(&container.id, &container.known_as)));
            known.and_then(|text| text.parse().ok()).unwrap_or_default()
        };
        let info = Arc::new(ContainerInfo {
            labels: container.known_as.clone(),
            line_labels: Target::new(container.stdout.labels().iter()).ok(),
            ..ContainerInfo::default()
        });
        shared.infos.lock().insert(container.id.clone(), Arc::clone(&info));
        Tailer {
            feed: Feed::new(Arc::clone(&shared.row)),
            container,
            connection,
            shared,
            settings,
            start,
            last_line: 0,
            told: None,
            info,
            dropped: Dropped::default(),
        }
    }

    /// Reads until it is stopped or the container is gone.
    pub(super) async fn run(mut self, mut stop: Stop) {
        self.follow(&mut stop).await;
        self.info.is_running.store(false, Ordering::Relaxed);
        self.feed.end().await;
        self.note();
    }

    async fn follow(&mut self, stop: &mut Stop) {
        let mut first = true;
        while !stop.is_set() {
            let inspected = tokio::select! {
                inspected = self.inspect() => inspected,
                () = stop.wait() => return,
            };
            let is_running = matches!(&inspected, Ok(Some(state)) if state.running);
            self.info.is_running.store(is_running, Ordering::Relaxed);
            match inspected {
                Ok(None) => {
                    let id = &self.container.id;
                    self.shared.logger.info("container no longer exists, stopping tailer", &[("id", id.into())]);
                    return;
                }
                Ok(Some(state)) if first || state.running || state.finished >= self.last_line => {
                    first = false;
                    match self.read(state.tty, stop).await {
                        Ended::Stopped => return,
                        Ended::Again(wait) => {
                            if !stop.sleep(wait).await {
                                return;
                            }
                            continue;
                        }
                        Ended::Closed(None) => self.told = None,
                        Ended::Closed(Some(why)) => self.tell("could not transfer logs", why),
                    }
                }
                Ok(Some(_)) => {}
                Err(why) => self.tell("error inspecting Docker container", why),
            }
            self.note();
            if !stop.sleep(LOOK_EVERY).await {
                return;
            }
        }
    }

    /// Says what went wrong, once.
    fn tell(&mut self, message: &str, why: String) {
        if self.told.as_ref() != Some(&why) {
            let fields = [("id", (&self.container.id).into()), ("err", (&why).into())];
            self.shared.logger.error(message, &fields);
            self.info.last_error.note(&format!("{message}: {why}"));
            self.told = Some(why);
        }
    }

    fn note(&self) {
        if let Some(place) = self.feed.settled_to() {
            self.shared.cursors.lock().set(&key(&self.container.id, ""), place.to_string());
        }
    }

    async fn get(&self, path: &str) -> Result<Response<ResponseBody>, String> {
        let Connection { daemon, client, answer_wait_max, .. } = &*self.connection;
        let url = format!("{}/containers/{}/{path}", daemon.base, self.container.id);
        let request = Request::get(url).body(Body::empty()).map_err(|error| error.to_string())?;
        match tokio::time::timeout(*answer_wait_max, client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => Err("the daemon did not answer in time".to_owned()),
        }
    }

    /// What the daemon says of the container; nothing if there is none.
    async fn inspect(&self) -> Result<Option<State>, String> {
        let response = self.get("json").await?;
        let status = response.status();
        let read = tokio::time::timeout(self.connection.answer_wait_max, response.into_body().read(INSPECT_BYTES_MAX));
        let body = read.await.map_err(|_| "the daemon did not answer in time".to_owned())?;
        let body = body.map_err(|error| error.to_string())?;
        match status {
            StatusCode::OK => State::parse(&body).map(Some),
            StatusCode::NOT_FOUND => Ok(None),
            _ => Err(refusal(status, &body)),
        }
    }

    /// Reads the log until it ends.
    async fn read(&mut self, tty: bool, stop: &mut Stop) -> Ended {
        let from = self.feed.settled_to().unwrap_or(self.start);
        let path = format!("logs?follow=1&since={}&stderr=1&stdout=1&timestamps=1", from.since);
        let response = tokio::select! {
            response = self.get(&path) => response,
            () = stop.wait() => return Ended::Stopped,
        };
        let response = match response {
            Ok(response) => response,
            Err(why) => return Ended::Closed(Some(why)),
        };
        let status = response.status();
        let mut body = response.into_body();
        if status != StatusCode::OK {
            return Ended::Closed(Some(refusal(status, body.read_start(1024).await.as_bytes())));
        }
        let mut lines = DockerLines::new(tty);
        let mut reading = Reading::from(from);
        let mut builder = EntriesBuilder::new();
        loop {
            let wait = if builder.is_empty() { IDLE_LOOK } else { JOIN_WAIT };
            let chunk = tokio::select! {
                chunk = tokio::time::timeout(wait, body.chunk()) => chunk,
                () = stop.wait() => return Ended::Stopped,
            };
            let (ended, quiet) = match chunk {
                Ok(Ok(Some(bytes))) => {
                    (self.take(&bytes, &mut lines, &mut reading, &mut builder).err().map(Some), false)
                }
                Ok(Ok(None)) => {
                    lines.finish(|event| self.line(event, &mut reading, &mut builder));
                    (Some(None), false)
                }
                Ok(Err(error)) => (Some(Some(error.to_string())), false),
                Err(_) => (None, true),
            };
            self.dropped.count(&self.shared.row);
            let full = builder.len() >= BATCH_LINES || builder.own_bytes() >= BATCH_BYTES || builder.is_full();
            if !builder.is_empty() && (full || quiet || ended.is_some()) {
                let entries = builder.finish(now().as_millis() as i64);
                let count = entries.len() as u64;
                let forward = self.settings.borrow().forward.clone();
                match self.feed.send(&forward, entries, reading.place(), &self.shared.logger, stop).await {
                    Sent::Taken => {
                        self.shared.entries.add(count);
                        self.info.lines.fetch_add(count, Ordering::Relaxed);
                        self.info.last_line_ns.store(reading.last_ns, Ordering::Relaxed);
                    }
                    Sent::Again(wait) => return Ended::Again(wait),
                    Sent::Stopped => return Ended::Stopped,
                }
            }
            if let Some(why) = ended {
                return Ended::Closed(why);
            }
            if let Some(wait) = self.feed.take_failure() {
                return Ended::Again(wait);
            }
            self.note();
        }
    }

    fn take(
        &mut self,
        bytes: &Bytes,
        lines: &mut DockerLines,
        reading: &mut Reading,
        builder: &mut EntriesBuilder,
    ) -> Result<(), String> {
        lines.push(bytes, |event| self.line(event, reading, builder)).map_err(|error| error.to_string())
    }

    fn line(&mut self, event: Event<'_>, reading: &mut Reading, builder: &mut EntriesBuilder) {
        match event {
            Event::Line { output, time_ns, content } => {
                if reading.is_new(time_ns) {
                    let part = builder.stream(match output {
                        Output::Stdout => &self.container.stdout,
                        Output::Stderr => &self.container.stderr,
                    });
                    let line = builder.own(content);
                    builder.push(part, time_ns, line);
                    self.last_line = now().as_secs() as i64;
                }
            }
            Event::NoTime => {
                self.dropped.no_time += 1;
                self.shared.errors.inc();
                self.tell("could not extract timestamp, skipping line", "could not find timestamp in bytes".to_owned());
            }
            Event::TooLong => {
                self.dropped.too_long += 1;
                self.shared.errors.inc();
                self.tell("line too big, skipping", "a line is longer than 1 MiB".to_owned());
            }
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn refusal(status: StatusCode, body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(1024)]).trim().to_owned();
    format!("the daemon answered {status}: {text}")
}

/// What matters of a container's description.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    tty: bool,
    running: bool,
    /// When it ended last, in seconds since the Unix epoch.
    finished: i64,
}

impl State {
    fn parse(body: &[u8]) -> Result<Self, String> {
        let value: serde_json::Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        let finished = value["State"]["FinishedAt"].as_str().and_then(|text| rfc3339_ns(text.as_bytes()));
        Ok(State {
            tty: value["Config"]["Tty"].as_bool().unwrap_or(false),
            running: value["State"]["Running"].as_bool().unwrap_or(false),
            finished: finished.unwrap_or(0).div_euclid(1_000_000_000),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn a_place_is_read_as_it_was_written_and_the_references_second_is_one() {
        let place = Place { since: 1_700_000_000, seen: 17, last_ns: 1_700_000_001_000_000_005 };
        assert_eq!(place.to_string().parse(), Ok(place));
        assert_eq!("1700000000".parse(), Ok(Place { since: 1_700_000_000, seen: 0, last_ns: 0 }));
        for bad in ["", "x", "1 2", "1 2 x", "1 2 3 4"] {
            assert_eq!(bad.parse::<Place>(), Err(()), "{bad}");
        }
    }

    #[test]
    fn containers_are_read_from_what_the_daemon_says() {
        let text = br#"{"Config":{"Tty":true},"State":{"Running":false,"FinishedAt":"2026-08-21T10:00:00.5Z"}}"#;
        assert_eq!(State::parse(text), Ok(State { tty: true, running: false, finished: 1_787_306_400 }));
        let never = br#"{"State":{"Running":true,"FinishedAt":"0001-01-01T00:00:00Z"}}"#;
        assert_eq!(State::parse(never), Ok(State { tty: false, running: true, finished: 0 }));
        assert!(State::parse(b"[").is_err());
    }

    #[test]
    fn a_rotated_log_loses_nothing_that_is_newer() {
        let mut reading = Reading::from(Place { since: 10, seen: 5, last_ns: 11 * SECOND });
        // The first four of the five are gone.
        assert!(!reading.is_new(11 * SECOND));
        assert!(reading.is_new(11 * SECOND + 1));
        assert!(reading.is_new(10 * SECOND), "a line of the other output that is a little behind");
    }

    proptest! {
        #[test]
        fn reading_again_from_any_place_gives_each_line_once(
            steps in proptest::collection::vec((0_i64..2_000_000_000, 0_i64..900_000_000), 1..60),
            stops in proptest::collection::vec(any::<prop::sample::Index>(), 0..5),
        ) {
            // Times go up, but one writer may be behind the other.
            let mut at = 100 * SECOND;
            let times: Vec<i64> = steps.iter().map(|(step, behind)| { at += step; at - behind }).collect();
            let mut place = Place::default();
            let mut got = Vec::new();
            let mut stops: Vec<usize> = stops.iter().map(|stop| stop.index(times.len() + 1)).collect();
            stops.sort_unstable();
            stops.push(times.len());
            for stop in stops {
                // The daemon gives what is not before the second that is asked for.
                let mut reading = Reading::from(place);
                for (index, time) in times[..stop].iter().enumerate() {
                    if *time >= place.since * SECOND && reading.is_new(*time) {
                        got.push(index);
                    }
                }
                if reading.came > 0 {
                    place = reading.place();
                }
            }
            prop_assert_eq!(got, (0..times.len()).collect::<Vec<_>>());
        }
    }
}
