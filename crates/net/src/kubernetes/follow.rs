//! Following the objects of a kind: they are listed, and watched from then on.

use std::fmt;
use std::hash::{BuildHasher as _, RandomState};
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};
use url::form_urlencoded::Serializer;

use super::lines::Lines;
use super::message::{Event, Page, Read};
use super::{Api, ApiError, within};
use crate::cloud::escape;
use crate::{Backoff, ResponseBody};

/// How many objects are asked for at once. Servers that list from memory give all.
const PAGE_OBJECTS: usize = 500;
/// The largest answer with objects.
const PAGE_BYTES_MAX: usize = 128 << 20;
/// How long it may take.
const PAGE_MS_MAX: u64 = 60_000;
/// The largest event. The largest object that is stored has a megabyte and a half in another form.
const EVENT_BYTES_MAX: usize = 16 << 20;
/// How long it may take until a watch begins.
const WATCH_BEGIN_MS_MAX: u64 = 30_000;
/// How long a server goes on with a watch that it was not told the end of: it chooses from half an hour to an hour.
const WATCH_UNTOLD: Duration = Duration::from_secs(2 * 3600);
/// How much longer than it was asked to may the server go on with a watch.
const WATCH_LATE: Duration = Duration::from_secs(30);
/// A watch that ends sooner without having said anything has failed.
const WATCH_MIN: Duration = Duration::from_secs(1);
/// The waits before the API is asked again, which double. To each up to as much again is added by chance, so that not all
/// who follow ask at once when the API is back.
const WAIT_MIN: Duration = Duration::from_millis(800);
const WAIT_MAX: Duration = Duration::from_secs(30);
/// The longest wait that the API may ask for.
const WAIT_ASKED_MAX: Duration = Duration::from_secs(300);

/// The version that stands for any.
const ANY: &str = "0";

/// Objects of a kind, all or some.
#[derive(Clone, Debug, PartialEq)]
pub struct Collection {
    /// Where the API has them.
    pub path: String,
    /// What labels must be, as `name=value` or otherwise in the language of Kubernetes; empty for no matter what.
    pub label_selector: String,
    /// What fields must be, likewise.
    pub field_selector: String,
    /// How long the server is to go on with a watch, in whole seconds. Zero leaves it to the server.
    pub watch: Duration,
    /// How many objects a list may have.
    pub objects_max: usize,
}

impl Collection {
    /// The objects of a kind, named in the plural as in the API, of a group and its version (`/api/v1`,
    /// `/apis/apps/v1`), in a namespace or, if it is empty, in all.
    pub fn new(group: &str, namespace: &str, kind: &str) -> Self {
        let namespace = match namespace {
            "" => String::new(),
            namespace => format!("/namespaces/{}", escape(namespace.as_bytes(), false)),
        };
        Self {
            path: format!("{group}{namespace}/{kind}"),
            label_selector: String::new(),
            field_selector: String::new(),
            watch: Duration::from_secs(300),
            objects_max: 100_000,
        }
    }

    /// Path and query of a request.
    fn target(&self, more: &[(&str, &str)]) -> String {
        let mut query = Serializer::new(String::new());
        for (name, value) in [("labelSelector", &*self.label_selector), ("fieldSelector", &*self.field_selector)] {
            if !value.is_empty() {
                query.append_pair(name, value);
            }
        }
        let seconds = self.watch.as_secs();
        if seconds > 0 {
            query.append_pair("timeoutSeconds", &seconds.to_string());
        }
        format!("{}?{}", self.path, query.extend_pairs(more).finish())
    }
}

/// What has changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// These are all, by their names, with their namespaces where they have any. What is not among them is gone.
    All(Vec<(String, T)>),
    /// This one is new, or another than before.
    Is(String, T),
    /// This one is gone.
    Gone(String),
}

/// Follows the objects of a collection, as long as it is asked for changes.
pub struct Follower<T> {
    api: Api,
    collection: Collection,
    read: Box<Read<T>>,
    state: State,
    /// When the API may be asked again.
    resume: Option<Instant>,
    backoff: Backoff,
}

enum State {
    /// They are to be listed: as they are now or were at any time since a version; `None` for now.
    List(Option<String>),
    /// They are known as of a version.
    Watch(String, Option<Box<Watch>>),
}

/// A watch under way.
struct Watch {
    body: ResponseBody,
    lines: Lines,
    begun: Instant,
    ends: Option<Instant>,
    has_spoken: bool,
}

/// What has happened that the caller need not know.
type Step<T> = Result<Option<Change<T>>, ApiError>;

impl<T> Follower<T> {
    pub(super) fn new(api: Api, collection: Collection, read: Box<Read<T>>) -> Self {
        // Any version is good enough to begin with, which spares the store of the cluster.
        let state = State::List(Some(ANY.to_owned()));
        Self { api, collection, read, state, resume: None, backoff: Backoff::new(WAIT_MIN, WAIT_MAX) }
    }

    /// With other waits after failures.
    #[cfg(test)]
    pub(super) fn with_waits(mut self, min: Duration, max: Duration) -> Self {
        self.backoff = Backoff::new(min, max);
        self
    }

    /// Waits for the next change. It may be given up at any time, and asked for again.
    ///
    /// # Errors
    /// The API cannot be reached, refuses, or says what cannot be understood. What is known stays as it is; asked for the
    /// next change, this waits a while and tries again.
    pub async fn next(&mut self) -> Result<Change<T>, ApiError> {
        loop {
            if let Some(resume) = self.resume {
                sleep_until(resume).await;
                self.resume = None;
            }
            if let Some(change) = self.step().await? {
                return Ok(change);
            }
        }
    }

    async fn step(&mut self) -> Step<T> {
        match &mut self.state {
            State::List(since) => {
                let since = since.clone();
                let outcome = within_pages(&self.api, &self.collection, &*self.read, since.as_deref()).await;
                self.listed(since, outcome)
            }
            State::Watch(version, watch @ None) => {
                let more = [("allowWatchBookmarks", "true"), ("resourceVersion", &**version), ("watch", "true")];
                let target = self.collection.target(&more);
                let begun = Instant::now();
                match within(WATCH_BEGIN_MS_MAX, self.api.ask(&target)).await {
                    Ok(body) => {
                        // One that is silent for longer is dead, even if its system still answers for it.
                        let told = Some(self.collection.watch).filter(|watch| watch.as_secs() > 0);
                        let limit = told.unwrap_or(WATCH_UNTOLD).saturating_add(WATCH_LATE);
                        let ends = begun.checked_add(limit);
                        let lines = Lines::new(EVENT_BYTES_MAX);
                        *watch = Some(Box::new(Watch { body, lines, begun, ends, has_spoken: false }));
                        Ok(None)
                    }
                    Err(error) => self.broken(error),
                }
            }
            State::Watch(_, Some(watch)) => match watch.next(&*self.read).await {
                Ok(Some(event)) => self.happened(event),
                Ok(None) => {
                    let (is_short, is_silent) = (watch.begun.elapsed() < WATCH_MIN, !watch.has_spoken);
                    self.break_off();
                    let short = ApiError::new("watch lasted less than a second and said nothing");
                    if is_short && is_silent {
                        return self.broken(short);
                    }
                    if is_short {
                        self.wait(&short);
                    }
                    Ok(None)
                }
                Err(Broken::Ended(error)) => self.broken(error),
                Err(Broken::Garbled(error)) => self.list_again(error),
            },
        }
    }

    fn listed(&mut self, since: Option<String>, outcome: Result<(Vec<(String, T)>, String), ApiError>) -> Step<T> {
        match outcome {
            Ok((items, version)) => {
                self.state = State::Watch(version, None);
                Ok(Some(Change::All(items)))
            }
            Err(error) => {
                self.wait(&error);
                // That is no failure if it was about a version.
                let is_told = !error.is_expired || since.is_none();
                // The version of another server may make no sense to this one.
                if error.is_expired || matches!(error.code, 400 | 422) {
                    self.state = State::List(None);
                }
                if is_told { Err(error) } else { Ok(None) }
            }
        }
    }

    fn happened(&mut self, event: Event<T>) -> Step<T> {
        let State::Watch(at, Some(watch)) = &mut self.state else { return Ok(None) };
        watch.has_spoken = true;
        if !matches!(event, Event::Failed(_)) {
            // All is well. A watch that ends at once is waited for all the same.
            self.backoff.reset();
        }
        Ok(match event {
            Event::Is { name, version, kept } => {
                *at = version;
                Some(Change::Is(name, kept))
            }
            Event::Gone { name, version } => {
                *at = version;
                Some(Change::Gone(name))
            }
            Event::Bookmark { version } => {
                *at = version;
                None
            }
            Event::Failed(error) => return self.broken(error),
        })
    }

    /// A watch has failed: it goes on where it was, if that is possible.
    fn broken(&mut self, error: ApiError) -> Step<T> {
        self.break_off();
        if error.is_expired {
            // Some time has passed; nothing is wrong.
            self.wait(&error);
            if let State::Watch(version, _) = &self.state {
                self.state = State::List(Some(version.clone()));
            }
            return Ok(None);
        }
        if error.is_passing() {
            self.wait(&error);
            return Err(error);
        }
        self.list_again(error)
    }

    /// What was said cannot be understood, or is not allowed: who knows what has changed.
    fn list_again(&mut self, error: ApiError) -> Step<T> {
        self.wait(&error);
        if let State::Watch(version, _) = &self.state {
            self.state = State::List(Some(version.clone()));
        }
        Err(error)
    }

    /// Ends a watch. One that has lasted shows that all is well.
    fn break_off(&mut self) {
        let State::Watch(version, watch) = &mut self.state else { return };
        if watch.take().is_some_and(|watch| watch.begun.elapsed() >= WATCH_MIN) {
            self.backoff.reset();
        }
        if version == ANY {
            // A watch from there says what is, but not what is gone.
            self.state = State::List(Some(ANY.to_owned()));
        }
    }

    fn wait(&mut self, error: &ApiError) {
        let wait = self.backoff.next_wait();
        let chance = RandomState::new().hash_one(()) as f64 / u64::MAX as f64;
        let asked = error.after.unwrap_or_default().min(WAIT_ASKED_MAX);
        self.resume = Instant::now().checked_add(wait.mul_f64(1.0 + chance).max(asked));
    }
}

impl<T> fmt::Debug for Follower<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower").field("collection", &self.collection).finish_non_exhaustive()
    }
}

/// All objects, and the version of the list.
async fn within_pages<T>(
    api: &Api,
    collection: &Collection,
    read: &Read<T>,
    since: Option<&str>,
) -> Result<(Vec<(String, T)>, String), ApiError> {
    let limit = PAGE_OBJECTS.to_string();
    let (mut items, mut next) = (Vec::new(), String::new());
    loop {
        let mut more = vec![("limit", &*limit)];
        match since {
            _ if !next.is_empty() => more.push(("continue", &*next)),
            Some(since) => more.extend([("resourceVersion", since), ("resourceVersionMatch", "NotOlderThan")]),
            None => {}
        }
        let target = collection.target(&more);
        let left = collection.objects_max - items.len();
        let page = within(PAGE_MS_MAX, async {
            let body = api.ask(&target).await?.read(PAGE_BYTES_MAX).await?;
            Page::parse(&body, read, left)
                .map_err(|error| ApiError::new(format!("the list of {} cannot be read: {error}", collection.path)))
        });
        let page = page.await?;
        if page.items.is_empty() && !page.next.is_empty() {
            // It would never end.
            return Err(ApiError::new(format!("the list of {} has an empty page", collection.path)));
        }
        items.extend(page.items);
        next = page.next;
        if next.is_empty() {
            return Ok((items, page.version));
        }
    }
}

/// Why a watch has ended.
enum Broken {
    Ended(ApiError),
    /// What came is not an event.
    Garbled(ApiError),
}

impl Watch {
    /// The next event; nothing at the end.
    async fn next<T>(&mut self, read: &Read<T>) -> Result<Option<Event<T>>, Broken> {
        loop {
            let line = self.lines.next();
            let line = line.map_err(|_| format!("an event is larger than the limit of {EVENT_BYTES_MAX} bytes"));
            if let Some(line) = line.map_err(garbled)? {
                return Event::parse(&line, read).map(Some).map_err(garbled);
            }
            let ends = self.ends;
            let chunk = async {
                match ends {
                    Some(ends) => match timeout_at(ends, self.body.chunk()).await {
                        Ok(chunk) => chunk.map_err(ApiError::from),
                        Err(_) => Err(ApiError::new("watch has not ended in time")),
                    },
                    None => self.body.chunk().await.map_err(ApiError::from),
                }
            };
            match chunk.await.map_err(Broken::Ended)? {
                Some(chunk) => self.lines.push(&chunk),
                None => return Ok(None),
            }
        }
    }
}

fn garbled(text: String) -> Broken {
    Broken::Garbled(ApiError::new(format!("watch cannot be read: {text}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::super::testing::Server;
    use super::*;

    const SOON: Duration = Duration::from_millis(1);

    fn object(name: &str, version: u64) -> Value {
        json!({"metadata": {"name": name, "resourceVersion": version.to_string()}})
    }

    fn list(version: u64, next: &str, names: &[&str]) -> String {
        let items: Vec<Value> = names.iter().map(|name| object(name, 1)).collect();
        json!({"metadata": {"resourceVersion": version.to_string(), "continue": next}, "items": items}).to_string()
    }

    fn event(kind: &str, name: &str, version: u64) -> String {
        format!("{}\n", json!({"type": kind, "object": object(name, version)}))
    }

    fn failure(code: u16, reason: &str) -> String {
        format!("{}\n", json!({"type": "ERROR", "object": {"code": code, "reason": reason, "message": "why"}}))
    }

    fn things() -> Collection {
        let label_selector = "a/b=c".to_owned();
        Collection { label_selector, watch: Duration::from_secs(60), ..Collection::new("/api/v1", "n/x", "things") }
    }

    async fn follower(server: &Server, collection: Collection) -> Follower<String> {
        let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().unwrap_or_default().to_owned();
        server.api().await.follow(collection, version).with_waits(SOON, SOON)
    }

    fn all(names: &[&str]) -> Result<Change<String>, ApiError> {
        Ok(Change::All(names.iter().map(|name| ((*name).to_owned(), "1".to_owned())).collect()))
    }

    fn is(name: &str, version: u64) -> Result<Change<String>, ApiError> {
        Ok(Change::Is(name.to_owned(), version.to_string()))
    }

    const LIST: &str = "/api/v1/namespaces/n%2Fx/things?labelSelector=a%2Fb%3Dc&timeoutSeconds=60&limit=500";
    const WATCH: &str = "/api/v1/namespaces/n%2Fx/things?labelSelector=a%2Fb%3Dc&timeoutSeconds=60\
        &allowWatchBookmarks=true&resourceVersion=";

    #[tokio::test]
    async fn objects_are_listed_page_by_page_and_watched_from_then_on() {
        let server = Server::start().await;
        let mut follower = follower(&server, things()).await;
        server.says(200, list(5, "more", &["a", "b"]));
        server.says(200, list(5, "", &["c"]));
        assert_eq!(follower.next().await, all(&["a", "b", "c"]));
        let stream = server.streams();
        let whole = event("ADDED", "d", 6) + &event("BOOKMARK", "", 9) + &event("MODIFIED", "a", 10);
        let (first, rest) = whole.split_at(20);
        stream.send(first.to_owned()).unwrap();
        // Giving up a wait loses nothing.
        assert!(tokio::time::timeout(Duration::from_millis(50), follower.next()).await.is_err());
        stream.send(rest.to_owned()).unwrap();
        assert_eq!(follower.next().await, is("d", 6));
        assert_eq!(follower.next().await, is("a", 10));
        stream.send(event("DELETED", "b", 11)).unwrap();
        assert_eq!(follower.next().await, Ok(Change::Gone("b".to_owned())));
        // The server ends the watch, and the next one goes on where it was.
        drop(stream);
        let stream = server.streams();
        stream.send(event("ADDED", "e", 12)).unwrap();
        assert_eq!(follower.next().await, is("e", 12));
        assert_eq!(
            server.targets(),
            [
                format!("{LIST}&resourceVersion=0&resourceVersionMatch=NotOlderThan"),
                format!("{LIST}&continue=more"),
                format!("{WATCH}5&watch=true"),
                format!("{WATCH}11&watch=true"),
            ]
        );
    }

    #[tokio::test]
    async fn what_is_not_there_any_more_is_listed_again() {
        let server = Server::start().await;
        let mut follower = follower(&server, things()).await;
        server.says(200, list(5, "", &["a"]));
        assert_eq!(follower.next().await, all(&["a"]));
        // A watch is told so within its events, or at once; a list of that version may be refused likewise.
        server.streams().send(event("ADDED", "b", 6) + &failure(410, "Expired")).unwrap();
        server.says(200, list(7, "", &["b"]));
        server.says(410, json!({"code": 410, "reason": "Gone"}).to_string());
        server.says(410, json!({"code": 410, "reason": "Gone"}).to_string());
        server.says(200, list(3, "", &["c"]));
        assert_eq!(follower.next().await, is("b", 6));
        assert_eq!(follower.next().await, all(&["b"]));
        assert_eq!(follower.next().await, all(&["c"]));
        assert_eq!(
            server.targets()[1..],
            [
                format!("{WATCH}5&watch=true"),
                format!("{LIST}&resourceVersion=6&resourceVersionMatch=NotOlderThan"),
                format!("{WATCH}7&watch=true"),
                format!("{LIST}&resourceVersion=7&resourceVersionMatch=NotOlderThan"),
                LIST.to_owned(),
            ]
        );
    }

    #[tokio::test]
    async fn a_version_that_stands_for_any_is_no_place_to_go_on_from() {
        let server = Server::start().await;
        let mut follower = follower(&server, things()).await;
        server.says(200, list(0, "", &["a", "b"]));
        server.streams().send(event("ADDED", "a", 0) + &failure(429, "TooManyRequests")).unwrap();
        assert_eq!(follower.next().await, all(&["a", "b"]));
        assert_eq!(follower.next().await, is("a", 0));
        assert!(follower.next().await.is_err());
        // Meanwhile another has gone, which no watch tells. Nor does it where none has begun, or one has ended well.
        server.says(200, list(0, "", &["a"]));
        assert_eq!(follower.next().await, all(&["a"]));
        server.says(503, "");
        assert!(follower.next().await.is_err());
        server.says(200, list(0, "", &[]));
        assert_eq!(follower.next().await, all(&[]));
        server.says(200, event("ADDED", "c", 0));
        assert_eq!(follower.next().await, is("c", 0));
        server.says(200, list(7, "", &["c"]));
        assert_eq!(follower.next().await, all(&["c"]));
        let asked = server.targets();
        assert_eq!(asked.iter().filter(|target| target.starts_with(LIST)).count(), 4, "{asked:?}");
    }

    #[tokio::test]
    async fn a_version_that_makes_no_sense_to_the_api_is_given_up() {
        let server = Server::start().await;
        let mut follower = follower(&server, things()).await;
        server.says(400, json!({"code": 400, "message": "invalid resource version"}).to_string());
        assert!(follower.next().await.is_err());
        server.says(200, list(5, "", &["a"]));
        assert_eq!(follower.next().await, all(&["a"]));
        assert_eq!(server.targets()[1], LIST);
    }

    #[tokio::test]
    async fn a_watch_that_says_nothing_forever_is_broken_off() {
        for (told, limit) in [(Duration::from_secs(60), 90), (Duration::ZERO, 7230), (Duration::from_millis(500), 7230)]
        {
            let server = Server::start().await;
            let mut follower = follower(&server, Collection { watch: told, ..things() }).await;
            server.says(200, list(5, "", &[]));
            let _stream = server.streams();
            assert_eq!(follower.next().await, all(&[]));
            assert!(matches!(follower.step().await, Ok(None)), "it begins");
            let State::Watch(_, Some(watch)) = &mut follower.state else { panic!("a watch") };
            let limit = Duration::from_secs(limit);
            assert_eq!(watch.ends.unwrap().duration_since(watch.begun), limit);
            watch.ends = Some(watch.begun);
            assert_eq!(follower.next().await.unwrap_err().to_string(), "watch has not ended in time");
            server.streams().send(event("ADDED", "a", 6)).unwrap();
            assert_eq!(follower.next().await, is("a", 6));
        }
    }

    #[tokio::test]
    async fn watches_that_end_at_once_are_waited_for_the_longer_the_more_of_them_there_are() {
        let server = Server::start().await;
        let mut follower =
            follower(&server, things()).await.with_waits(Duration::from_millis(20), Duration::from_secs(1));
        server.says(200, list(5, "", &[]));
        assert_eq!(follower.next().await, all(&[]));
        for round in 0..4 {
            server.says(200, "");
            let begun = Instant::now();
            assert!(follower.next().await.is_err());
            let resume = follower.resume.expect("a wait").duration_since(begun);
            assert!(resume >= Duration::from_millis(20 << round), "{round}: {resume:?}");
        }
        // One that has said something is waited for, too.
        server.says(200, event("ADDED", "a", 6));
        assert_eq!(follower.next().await, is("a", 6));
        assert!(matches!(follower.step().await, Ok(None)), "it ends");
        assert!(follower.resume.is_some());
    }

    #[tokio::test]
    async fn failures_are_told_and_passed_over() {
        let server = Server::start().await;
        let mut follower = follower(&server, Collection { objects_max: 2, ..things() }).await;
        let failed = async |follower: &mut Follower<String>, why: &str| {
            let error = follower.next().await.unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
        };
        for (status, body, why) in [
            (403, json!({"message": "you may not"}).to_string(), "things: 403 Forbidden: you may not"),
            (500, "oops".to_owned(), "things: 500 Internal Server Error"),
            (200, "[".to_owned(), "cannot be read"),
            (200, list(5, "", &["a", "b", "c"]), "there are more than 2 objects"),
            (200, list(5, "x", &[]), "has an empty page"),
        ] {
            server.says(status, body);
            failed(&mut follower, why).await;
        }
        server.breaks_off("{");
        failed(&mut follower, "").await;
        server.says(200, list(5, "", &["a"]));
        assert_eq!(follower.next().await, all(&["a"]));
        // What passes does not lose the place; what cannot be understood does.
        let watched = server.targets().len();
        server.breaks_off(event("ADDED", "b", 6) + "{\"type\"");
        assert_eq!(follower.next().await, is("b", 6));
        failed(&mut follower, "").await;
        server.says(503, "");
        failed(&mut follower, "503").await;
        server.streams().send(failure(429, "TooManyRequests")).unwrap();
        failed(&mut follower, "429 Too Many Requests: why").await;
        server.says(200, "");
        failed(&mut follower, "watch lasted less than a second").await;
        assert_eq!(server.targets()[watched + 1..], vec![format!("{WATCH}6&watch=true"); 3]);
        for garbage in ["{}\n", "\u{0}\u{1}\n", "[[[\n", &event("NEW", "a", 7), &event("ADDED", "", 7)] {
            server.streams().send(garbage.to_owned()).unwrap();
            failed(&mut follower, "watch cannot be read").await;
            server.says(200, list(9, "", &["a"]));
            assert_eq!(follower.next().await, all(&["a"]));
        }
        server.says(401, "");
        failed(&mut follower, "401").await;
        server.says(200, list(9, "", &["a"]));
        assert_eq!(follower.next().await, all(&["a"]));
    }

    #[tokio::test]
    async fn an_event_without_an_end_is_not_read_forever() {
        let server = Server::start().await;
        let mut follower = follower(&server, things()).await;
        server.says(200, list(5, "", &[]));
        assert_eq!(follower.next().await, all(&[]));
        let stream = server.streams();
        let feeding = tokio::spawn(async move {
            let piece = "x".repeat(1 << 20);
            while stream.send(piece.clone()).is_ok() && !stream.is_closed() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        });
        let error = follower.next().await.unwrap_err().to_string();
        assert_eq!(error, "watch cannot be read: an event is larger than the limit of 16777216 bytes");
        feeding.abort();
    }

    #[tokio::test]
    async fn waits_grow_and_are_as_long_as_the_api_asks() {
        let server = Server::start().await;
        let mut follower = follower(&server, things()).await.with_waits(Duration::from_secs(1), Duration::from_secs(4));
        let mut waited = |after: Option<u64>| {
            let begun = Instant::now();
            follower.wait(&ApiError { after: after.map(Duration::from_secs), ..ApiError::new("") });
            follower.resume.unwrap().duration_since(begun).as_secs_f64()
        };
        // A busy machine may take a moment between two looks at the clock.
        for range in [1.0..3.0, 2.0..5.0, 4.0..9.0, 4.0..9.0] {
            let waited = waited(None);
            assert!(range.contains(&waited), "{waited}");
        }
        assert!((60.0..61.0).contains(&waited(Some(60))));
        assert!((300.0..301.0).contains(&waited(Some(86_400))));
    }
}
