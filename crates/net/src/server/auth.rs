//! Basic authentication of a server, by path.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use ring::digest::{SHA256, digest};
use subtle::ConstantTimeEq;

use super::{ServerBody, empty_body};
use crate::Secret;

/// Lets requests through that have the right user and password, or whose path needs none.
#[derive(Clone)]
pub struct BasicAuthFilter {
    username: [u8; 32],
    password: [u8; 32],
    paths: Vec<String>,
    authenticate_matching_paths: bool,
}

impl BasicAuthFilter {
    /// Every path needs authentication.
    pub fn new(username: &str, password: &Secret) -> Self {
        Self {
            username: hash(username.as_bytes()),
            password: hash(password.expose().as_bytes()),
            paths: Vec::new(),
            authenticate_matching_paths: false,
        }
    }

    /// Only paths that begin with one of `paths` need authentication, or, with `authenticate_matching_paths` false, all
    /// others do. No paths and `true` therefore switch authentication off, as in the reference.
    pub fn with_paths(mut self, paths: Vec<String>, authenticate_matching_paths: bool) -> Self {
        self.paths = paths;
        self.authenticate_matching_paths = authenticate_matching_paths;
        self
    }

    /// Whether a request may pass. Otherwise the response to send: 401 without a body.
    ///
    /// `path` is the path of the URL as it is used to find the handler: decoded, where that decodes it.
    ///
    /// # Errors
    ///
    /// The response.
    pub fn check(&self, path: &str, headers: &HeaderMap) -> Result<(), Box<Response<ServerBody>>> {
        if !self.guards(path) || self.accepts(headers) {
            return Ok(());
        }
        let mut response = Response::new(empty_body());
        *response.status_mut() = StatusCode::UNAUTHORIZED;
        let challenge = HeaderValue::from_static("Basic realm=\"Restricted\"");
        response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
        Err(Box::new(response))
    }

    /// Whether a path, as [`check`](Self::check) takes it, needs authentication.
    pub fn guards(&self, path: &str) -> bool {
        let matches = self.paths.iter().any(|prefix| path.starts_with(prefix.as_str()));
        matches == self.authenticate_matching_paths
    }

    fn accepts(&self, headers: &HeaderMap) -> bool {
        let Some((username, password)) = headers.get(header::AUTHORIZATION).and_then(read_basic) else { return false };
        // Hashes are of one length, so that not even the lengths can be told from the time this takes.
        let username = hash(&username).ct_eq(&self.username);
        let password = hash(&password).ct_eq(&self.password);
        (username & password).into()
    }
}

impl std::fmt::Debug for BasicAuthFilter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BasicAuthFilter").field("paths", &self.paths).finish_non_exhaustive()
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest(&SHA256, bytes).as_ref());
    out
}

/// User and password of an `Authorization` header (RFC 7617).
fn read_basic(value: &HeaderValue) -> Option<(Vec<u8>, Vec<u8>)> {
    let (scheme, rest) = value.as_bytes().split_at_checked(6)?;
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return None;
    }
    let mut pair = STANDARD.decode(rest.trim_ascii()).ok()?;
    let colon = pair.iter().position(|&byte| byte == b':')?;
    let password = pair.split_off(colon + 1);
    pair.pop();
    Some((pair, password))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(value: Option<&str>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert(header::AUTHORIZATION, value.parse().unwrap());
        }
        headers
    }

    fn basic(pair: &str) -> String {
        format!("Basic {}", STANDARD.encode(pair))
    }

    #[test]
    fn only_the_right_user_with_the_right_password_passes() {
        let filter = BasicAuthFilter::new("user", &Secret::new("pass:word"));
        for (value, passes) in [
            (Some(basic("user:pass:word")), true),
            (Some(basic("user:pass:word").replace("Basic", "bASIC")), true),
            (Some(basic("user:pass")), false),
            (Some(basic("User:pass:word")), false),
            (Some(basic(":")), false),
            (Some(basic("user")), false),
            (Some("Bearer x".to_owned()), false),
            (Some("Basic !".to_owned()), false),
            (Some("Basi".to_owned()), false),
            (None, false),
        ] {
            assert_eq!(filter.check("/", &headers(value.as_deref())).is_ok(), passes, "{value:?}");
        }
    }

    #[test]
    fn a_refusal_has_a_challenge_and_no_body() {
        let refusal = BasicAuthFilter::new("user", &Secret::new("x")).check("/", &HeaderMap::new()).unwrap_err();
        assert_eq!(refusal.status(), StatusCode::UNAUTHORIZED);
        assert_eq!(refusal.headers()[header::WWW_AUTHENTICATE], "Basic realm=\"Restricted\"");
        assert!(hyper::body::Body::is_end_stream(refusal.body()));
    }

    #[test]
    fn the_filter_says_which_paths_need_authentication() {
        for (paths, matching, path, open) in [
            (vec![], false, "/metrics", false),
            (vec![], true, "/metrics", true),
            (vec!["/api"], true, "/api/v0", false),
            (vec!["/api"], true, "/metrics", true),
            (vec!["/metrics", "/-/ready"], false, "/-/ready", true),
            (vec!["/metrics", "/-/ready"], false, "/api", false),
        ] {
            let paths = paths.into_iter().map(str::to_owned).collect();
            let filter = BasicAuthFilter::new("user", &Secret::new("x")).with_paths(paths, matching);
            assert_eq!(filter.check(path, &HeaderMap::new()).is_ok(), open, "{filter:?} {path}");
        }
    }

    proptest! {
        #[test]
        fn reading_credentials_never_panics(bytes in proptest::collection::vec(32_u8..127, 0..40)) {
            let value = HeaderValue::from_bytes(&bytes).unwrap();
            read_basic(&value);
            read_basic(&HeaderValue::from_bytes(&[b"Basic ", bytes.as_slice()].concat()).unwrap());
        }

        #[test]
        fn credentials_survive_their_encoding(user in "[^:]*", password in ".*") {
            let value = HeaderValue::from_str(&basic(&format!("{user}:{password}"))).unwrap();
            prop_assert_eq!(read_basic(&value), Some((user.into_bytes(), password.into_bytes())));
        }
    }
}
