//! `otelcol.auth.basic`.

mod htpasswd;

use std::any::Any;
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use corten_component::{Context, Error, HealthBoard, Logger};
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors};
use corten_files::{io_error_text, read_limited};
use corten_net::Secret;
use corten_otlp::{AuthData, Metadata, RequestContext};
use corten_signal::flow::BoxFuture;
use http::{HeaderMap, header};
use parking_lot::Mutex;
use ring::digest::{Context as Digest, SHA256};
use tokio::sync::Semaphore;

use self::htpasswd::{Stored, Users};
use super::{AuthError, Authenticator, ClientAuth, Credential, Kind, Made, ServerAuth, health, sensitive};
use crate::flow::DebugMetrics;

/// Authenticates by user name and password: exporters show them, receivers ask for them.
///
/// Users and passwords of those who send to a receiver stand in `htpasswd`, what exporters send in `client_auth`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct BasicArguments {
    /// The user, of exporters and of receivers.
    #[arg(optional, deprecated = "use the client_auth and htpasswd blocks instead")]
    username: String,
    /// The password, of exporters and of receivers.
    #[arg(optional, deprecated = "use the client_auth and htpasswd blocks instead")]
    password: Secret,
    /// What exporters send.
    #[block]
    client_auth: Option<ClientCredentials>,
    /// Whom receivers let in.
    #[block]
    htpasswd: Option<Htpasswd>,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// What exporters send. A user and a password are needed, each as text or in a file.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ClientCredentials {
    /// The user.
    #[arg(optional)]
    username: String,
    /// A file with the user, read again for every request. It wins over `username`.
    #[arg(optional)]
    username_file: String,
    /// The password.
    #[arg(optional)]
    password: Secret,
    /// A file with the password, read again for every request. It wins over `password`.
    #[arg(optional)]
    password_file: String,
}

/// Users and passwords as the web server Apache has them: a line of `user:password` for each. Passwords are digests of
/// bcrypt, SHA-1 (salted or not), MD5 (`$apr1$`, `$1$`), SHA-crypt (`$5$`, `$6$`), or the password itself.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Htpasswd {
    /// A file of users and passwords. It is read again when it has changed.
    #[arg(optional)]
    file: String,
    /// Users and passwords. They win over those of the file.
    #[arg(optional)]
    inline: String,
}

impl BasicArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let nothing = self.username.is_empty()
            && self.password.is_empty()
            && self.htpasswd.is_none()
            && self.client_auth.is_none();
        errors.require(!nothing, &["username", "password", "htpasswd", "client_auth"], "no credential source provided");
        errors.require(
            self.username.is_empty() || !self.password.is_empty(),
            &["username", "password"],
            "no password provided",
        );
        errors.into_result()
    }

    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(
            self.client_auth.is_some() || self.has_users(),
            &["htpasswd", "username", "password"],
            "no credential source provided",
        );
        errors.into_result()
    }

    fn has_users(&self) -> bool {
        let htpasswd = self.htpasswd.as_ref().is_some_and(|it| !it.file.is_empty() || !it.inline.is_empty());
        htpasswd || (!self.username.is_empty() && !self.password.is_empty())
    }
}

/// The component.
pub(crate) type BasicAuth = Authenticator<Basic>;

pub(crate) enum Basic {}

impl Kind for Basic {
    const NAME: &'static str = "otelcol.auth.basic";
    type Arguments = BasicArguments;

    async fn sides(arguments: BasicArguments, cx: &Context<BasicAuth>) -> Result<Made, Error> {
        let mut made = Made::client(Client::new(&arguments));
        if let Some(credentials) = &arguments.client_auth
            && !credentials.is_whole()
        {
            made.unhealthy = Some(NO_SOURCE.to_owned());
        }
        if arguments.has_users() {
            let server = Server::new(arguments, Arc::clone(cx.health()), cx.logger().clone());
            made.unhealthy = server.users().await.err().or(made.unhealthy);
            made.server = Some(Arc::new(server));
        }
        Ok(made)
    }
}

const NO_SOURCE: &str = "no credential source provided";

impl ClientCredentials {
    /// Whether there is a user and a password.
    fn is_whole(&self) -> bool {
        let is_given = |text: &str, file: &str| !text.is_empty() || !file.is_empty();
        is_given(&self.username, &self.username_file) && is_given(self.password.expose(), &self.password_file)
    }
}

#[derive(Debug)]
struct Client {
    username: Credential,
    password: Credential,
    /// Whether user and password were given in part only.
    in_part: bool,
}

impl Client {
    fn new(arguments: &BasicArguments) -> Self {
        match &arguments.client_auth {
            Some(from) => Client {
                username: Credential::new(&*from.username, &*from.username_file),
                password: Credential::new(from.password.expose(), &*from.password_file),
                in_part: !from.is_whole(),
            },
            None => Client {
                username: Credential::new(&*arguments.username, ""),
                password: Credential::new(arguments.password.expose(), ""),
                in_part: false,
            },
        }
    }
}

impl ClientAuth for Client {
    fn authorize<'a>(
        &'a self,
        headers: &'a mut HeaderMap,
        _: &'a RequestContext,
    ) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async move {
            if self.in_part {
                return Err(AuthError::lasting(NO_SOURCE));
            }
            let (username, password) = (self.username.read().await?, self.password.read().await?);
            if username.expose().contains(':') {
                return Err(AuthError::lasting(INVALID_FORMAT));
            }
            let pair = STANDARD.encode(format!("{}:{}", username.expose(), password.expose()));
            headers.insert(header::AUTHORIZATION, sensitive(&format!("Basic {pair}"))?);
            Ok(())
        })
    }

    fn reads_context(&self) -> bool {
        false
    }
}

const INVALID_FORMAT: &str = "invalid authorization format";
const INVALID_CREDENTIALS: &str = "invalid credentials";
const UNREADABLE: &str = "the users cannot be read";

/// The largest file of users that is read.
const FILE_BYTES_MAX: usize = 16 << 20;
/// How often the file is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How many slow digests are computed at once: whoever guesses passwords gets no more of the machine.
const SLOW_MAX: usize = 2;

#[derive(Debug)]
struct Server {
    arguments: BasicArguments,
    health: Arc<HealthBoard>,
    logger: Logger,
    state: tokio::sync::Mutex<State>,
    /// Which passwords a slow digest has matched, so that it is computed once for each user.
    matched: Mutex<HashMap<String, [u8; 32]>>,
    /// Makes what is kept of a password useless elsewhere.
    pepper: [u8; 16],
    slow: Semaphore,
}

#[derive(Debug, Default)]
struct State {
    users: Option<Arc<Users>>,
    looked: Option<Instant>,
    stamp: Option<(u64, SystemTime)>,
    failed: bool,
}

/// What a sender showed.
struct Shown {
    username: String,
    raw: String,
}

impl std::fmt::Debug for Shown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // The rest holds the password.
        f.debug_struct("Shown").field("username", &self.username).finish_non_exhaustive()
    }
}

impl AuthData for Shown {
    fn attribute(&self, name: &str) -> Option<String> {
        match name {
            "username" => Some(self.username.clone()),
            "raw" => Some(self.raw.clone()),
            _ => None,
        }
    }

    fn names(&self) -> Vec<String> {
        vec!["username".to_owned(), "raw".to_owned()]
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Server {
    fn new(arguments: BasicArguments, health: Arc<HealthBoard>, logger: Logger) -> Self {
        let mut pepper = [0; 16];
        let (one, other) = pepper.split_at_mut(8);
        one.copy_from_slice(&RandomState::new().hash_one(0).to_ne_bytes());
        other.copy_from_slice(&RandomState::new().hash_one(1).to_ne_bytes());
        Server {
            arguments,
            health,
            logger,
            state: tokio::sync::Mutex::default(),
            matched: Mutex::default(),
            pepper,
            slow: Semaphore::new(SLOW_MAX),
        }
    }

    /// The users as they are now. When the file cannot be read any more, those that it had.
    async fn users(&self) -> Result<Arc<Users>, String> {
        let mut state = self.state.lock().await;
        if let Some(users) = &state.users
            && (self.file().is_none() || state.looked.is_some_and(|at| at.elapsed() < LOOK_EVERY))
        {
            return Ok(Arc::clone(users));
        }
        let stamp = state.stamp.filter(|_| !state.failed);
        let read = match self.file() {
            None => Ok(Some((String::new(), None))),
            Some(path) => tokio::task::spawn_blocking(move || read_if_changed(&path, stamp))
                .await
                .unwrap_or_else(|_| Err("reading files was interrupted by shutdown".to_owned())),
        };
        state.looked = Some(Instant::now());
        match read {
            Ok(None) => {}
            Ok(Some((file, stamp))) => {
                state.users = Some(Arc::new(Users::parse(&self.with_inline(&file))));
                state.stamp = stamp;
                self.matched.lock().clear();
                if state.failed {
                    state.failed = false;
                    self.health.set_reported(Some(health(None)));
                }
            }
            Err(error) => {
                if !state.failed {
                    state.failed = true;
                    self.logger.error("cannot read the users", &[("err", (&error).into())]);
                    self.health.set_reported(Some(health(Some(&error))));
                }
                return state.users.clone().ok_or(error);
            }
        }
        state.users.clone().ok_or_else(|| NO_SOURCE.to_owned())
    }

    fn file(&self) -> Option<PathBuf> {
        let htpasswd = self.arguments.htpasswd.as_ref();
        htpasswd.filter(|htpasswd| !htpasswd.file.is_empty()).map(|htpasswd| PathBuf::from(&htpasswd.file))
    }

    /// What stands in the configuration comes last, so that it wins.
    fn with_inline(&self, file: &str) -> String {
        let inline = self.arguments.htpasswd.as_ref().map_or("", |htpasswd| &htpasswd.inline);
        let (username, password) = (&self.arguments.username, self.arguments.password.expose());
        if username.is_empty() || password.is_empty() {
            return format!("{file}\n{inline}");
        }
        format!("{file}\n{inline}\n{username}:{password}")
    }

    async fn matches(&self, user: &str, stored: &Stored, password: &str) -> bool {
        if !stored.is_slow() {
            return stored.matches(password);
        }
        let mut digest = Digest::new(&SHA256);
        digest.update(&self.pepper);
        digest.update(password.as_bytes());
        let mut shown = [0; 32];
        shown.copy_from_slice(digest.finish().as_ref());
        if self.matched.lock().get(user) == Some(&shown) {
            return true;
        }
        // Nobody closes it.
        let Ok(_permit) = self.slow.acquire().await else { return false };
        let (stored, password) = (stored.clone(), password.to_owned());
        let matches = tokio::task::spawn_blocking(move || stored.matches(&password)).await.unwrap_or(false);
        if matches {
            self.matched.lock().insert(user.to_owned(), shown);
        }
        matches
    }
}

/// A file and what tells whether it has changed since.
type Read = (String, Option<(u64, SystemTime)>);

/// The content of a file unless it is as it was.
fn read_if_changed(path: &std::path::Path, known: Option<(u64, SystemTime)>) -> Result<Option<Read>, String> {
    let failed = |error: String| format!("open htpasswd file: {error}");
    let not_found = |error| failed(format!("open {}: {}", path.display(), io_error_text(&error)));
    let metadata = std::fs::metadata(path).map_err(not_found)?;
    let stamp = metadata.modified().ok().map(|modified| (metadata.len(), modified));
    // Clocks of file systems are coarse: one that was written just now may be written again without a new time.
    let settled = stamp.filter(|(_, at)| at.elapsed().map_or(true, |age| age > Duration::from_secs(2)));
    if known.is_some() && known == settled {
        return Ok(None);
    }
    let (content, _) = read_limited(path, FILE_BYTES_MAX).map_err(failed)?;
    Ok(Some((String::from_utf8_lossy(&content).into_owned(), settled)))
}

impl ServerAuth for Server {
    fn authenticate<'a>(&'a self, headers: &'a Metadata) -> BoxFuture<'a, Result<Arc<dyn AuthData>, String>> {
        Box::pin(async move {
            let value = headers.get("authorization").first().filter(|value| !value.is_empty());
            let (username, password, raw) = parse(value.ok_or("no basic auth provided")?)?;
            // Where the file is, is nobody's business who only sends.
            let users = self.users().await.map_err(|_| UNREADABLE.to_owned())?;
            match users.get(&username) {
                Some(stored) if self.matches(&username, stored, &password).await => {
                    Ok(Arc::new(Shown { username, raw }) as Arc<dyn AuthData>)
                }
                _ => Err(INVALID_CREDENTIALS.to_owned()),
            }
        })
    }
}

/// User, password and what both were read from, of an `Authorization` header (RFC 7617).
fn parse(value: &str) -> Result<(String, String, String), &'static str> {
    let (scheme, encoded) = value.split_at_checked(6).ok_or("invalid authorization scheme prefix")?;
    if !scheme.eq_ignore_ascii_case("basic ") {
        return Err("invalid authorization scheme prefix");
    }
    let pair = STANDARD.decode(encoded).ok().and_then(|pair| String::from_utf8(pair).ok()).ok_or(INVALID_FORMAT)?;
    let (username, password) = pair.split_once(':').ok_or(INVALID_FORMAT)?;
    Ok((username.to_owned(), password.to_owned(), encoded.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::testing::{authorized, handler, refusal, start, value_of};
    use corten_testkit::host;

    const NAME: &str = "otelcol.auth.basic";

    async fn shows(body: &str) -> Result<String, String> {
        let unit = start::<Basic>(host("otelcol.auth.basic.a"), body).await?;
        let handler = handler(&unit);
        Ok(authorized(handler.client()?, &RequestContext::default()).await?.join(" "))
    }

    #[tokio::test]
    async fn exporters_send_user_and_password() {
        let world = host("otelcol.auth.basic.a");
        let (user, password) = (world.write("u", "fizz\n"), world.write("p", " buzz\n"));
        let files = format!("client_auth {{\nusername_file = {user:?}\npassword_file = {password:?}\n}}");
        for (body, pair) in [
            ("username = \"a\"\npassword = \"b:c\"", "a:b:c"),
            ("username = \"a\"\npassword = \"b\"\nclient_auth {\nusername = \"x\"\npassword = \"y\"\n}", "x:y"),
            ("client_auth {\nusername = \"x\"\npassword = \"y\"\n}", "x:y"),
            (&*files, "fizz:buzz"),
            ("htpasswd {\ninline = \"u:p\"\n}", ":"),
        ] {
            assert_eq!(shows(body).await, Ok(format!("authorization=Basic {}", STANDARD.encode(pair))), "{body}");
        }
    }

    #[tokio::test]
    async fn what_cannot_be_sent_says_why() {
        for (body, why) in [
            ("username = \"a:b\"\npassword = \"c\"", INVALID_FORMAT),
            ("htpasswd {\ninline = \"u:p\"\n}\nclient_auth {\nusername = \"x\"\n}", NO_SOURCE),
            (
                "client_auth {\nusername = \"x\"\npassword_file = \"/nowhere/x\"\n}",
                "failed to read credentials file \"/nowhere/x\": open /nowhere/x: no such file or directory",
            ),
        ] {
            assert_eq!(shows(body).await, Err(why.to_owned()), "{body}");
        }
    }

    #[tokio::test]
    async fn arguments_that_name_no_credentials_are_refused() {
        for (body, why) in [
            ("", NO_SOURCE),
            ("username = \"a\"", "no password provided"),
            ("password = \"a\"", NO_SOURCE),
            ("htpasswd { }", NO_SOURCE),
        ] {
            let error = refusal::<Basic>(body).await;
            assert!(error.contains(why), "{NAME} {body}: {error}");
        }
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[tokio::test]
    async fn receivers_let_in_those_who_know_a_password_of_the_file_or_of_the_configuration() {
        let world = host("otelcol.auth.basic.a");
        let bcrypt = bcrypt::hash("password", 4).unwrap();
        let file = world.write("htpasswd", format!("user:{bcrypt}\nother:old\n"));
        let body = format!(
            "username = \"legacy\"\npassword = \"secret\"\nhtpasswd {{\nfile = {file:?}\ninline = \"other:new\"\n}}"
        );
        let unit = start::<Basic>(world, &body).await.unwrap();
        let handler = handler(&unit);
        let server = handler.server().unwrap();
        for _ in 0..2 {
            for (value, answer) in [
                (&*basic("user:password"), Ok("user")),
                (&basic("user:password").replace("Basic", "bASIC"), Ok("user")),
                (&basic("legacy:secret"), Ok("legacy")),
                (&basic("other:new"), Ok("other")),
                (&basic("other:old"), Err(INVALID_CREDENTIALS)),
                (&basic("user:wrong"), Err(INVALID_CREDENTIALS)),
                (&basic("nobody:password"), Err(INVALID_CREDENTIALS)),
                (&basic("user"), Err(INVALID_FORMAT)),
                ("Basic !", Err(INVALID_FORMAT)),
                ("Bearer x", Err("invalid authorization scheme prefix")),
                ("Bé", Err("invalid authorization scheme prefix")),
                ("", Err("no basic auth provided")),
            ] {
                let got = server.authenticate(&value_of("Authorization", value)).await;
                let got = got.map(|shown| shown.attribute("username").unwrap_or_default());
                assert_eq!(got.as_deref().map_err(|error| &**error), answer, "{value}");
            }
        }
        let shown = server.authenticate(&value_of("authorization", &basic("other:new"))).await.unwrap();
        assert_eq!(shown.attribute("raw"), Some(STANDARD.encode("other:new")));
        assert_eq!((shown.attribute("x"), shown.names()), (None, vec!["username".to_owned(), "raw".to_owned()]));
    }

    #[tokio::test]
    async fn a_file_that_is_missing_is_the_components_health_until_it_is_there() {
        let world = host("otelcol.auth.basic.a");
        let file = world.path("htpasswd");
        let unit = start::<Basic>(world.clone(), &format!("htpasswd {{\nfile = {file:?}\n}}")).await.unwrap();
        let why = format!("open htpasswd file: open {}: no such file or directory", file.display());
        assert_eq!(world.health_text(), format!("unhealthy: failed to create components: {why}"));
        let handler = handler(&unit);
        let server = handler.server().unwrap();
        let sent = value_of("authorization", &basic("a:b"));
        let error = server.authenticate(&sent).await.unwrap_err();
        assert_eq!(error, "the users cannot be read", "the sender is not told where the file is");
        assert!(world.logs().contains(&why), "{}", world.logs());
        world.write("htpasswd", "a:b");
        assert!(server.authenticate(&sent).await.is_ok());
        assert_eq!(world.health_text(), "healthy: started scheduled components");
    }

    proptest::proptest! {
        #[test]
        fn no_header_makes_it_panic(value in ".{0,40}") {
            let _ = parse(&value);
            let _ = parse(&format!("Basic {value}"));
        }
    }
}
