//! What can go wrong with a request, and texts that are safe to show.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use http::StatusCode;
use url::Url;

/// What kind of failure an [`Error`] is: what a caller decides by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The configuration cannot be used: found when the client or the TLS of a server is built.
    Config,
    /// The request itself cannot be sent: its URL has no host, or a header is not valid.
    Request,
    /// A connection, a TLS handshake or a body took longer than its limit.
    Timeout,
    /// No connection to the peer or the proxy: name resolution, refusal, unreachable network.
    Connect,
    /// The proxy refused to connect on.
    Proxy,
    /// The TLS handshake failed, or TLS material on disk could not be used.
    Tls,
    /// Credentials could not be obtained: an unreadable file, or a refused token request.
    Auth,
    /// A redirect could not be followed, or there were too many.
    Redirect,
    /// The peer broke off or did not speak HTTP.
    Protocol,
    /// The body or the headers were larger than the limit.
    TooLarge,
}

/// A failed request. The text names the method and the URL, redacted by [`redact_url`], and never holds a header, a
/// credential or a query value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    kind: ErrorKind,
    text: String,
    /// Where in the text the reason begins, behind the request.
    reason_at: usize,
}

impl Error {
    /// An error of `kind`. The text is lower case without a full stop and must hold no secret.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into(), reason_at: 0 }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// The text without the request that failed.
    pub fn reason(&self) -> &str {
        &self.text[self.reason_at..]
    }

    /// Whether the same request may succeed later without any change of the configuration.
    pub fn is_transient(&self) -> bool {
        match self.kind {
            ErrorKind::Config | ErrorKind::Request | ErrorKind::TooLarge | ErrorKind::Redirect => false,
            ErrorKind::Timeout
            | ErrorKind::Connect
            | ErrorKind::Proxy
            | ErrorKind::Tls
            | ErrorKind::Auth
            | ErrorKind::Protocol => true,
        }
    }

    pub(crate) fn config(text: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, text)
    }

    /// Puts words before the text, as in `<context>: <text>`.
    pub(crate) fn context(mut self, context: impl fmt::Display) -> Self {
        self.text = format!("{context}: {}", self.text);
        self
    }

    /// Puts before the text what was asked for.
    pub(crate) fn of_request(self, request: impl fmt::Display) -> Self {
        let reason_len = self.text.len();
        let error = self.context(request);
        Self { reason_at: error.text.len() - reason_len, ..error }
    }

    /// The failure of reading or writing an established connection.
    pub(crate) fn from_hyper(error: &hyper::Error) -> Self {
        // An error of ours that travelled through hyper, such as a stalled connection's, keeps its kind.
        if let Some(ours) = find_cause::<Error>(error) {
            return ours.clone();
        }
        let io = find_cause::<io::Error>(error);
        // hyper has no predicate for 'headers too large'; its text is the only sign.
        let kind = if error.is_parse_too_large() {
            ErrorKind::TooLarge
        } else if error.is_timeout() || io.is_some_and(|e| e.kind() == io::ErrorKind::TimedOut) {
            ErrorKind::Timeout
        } else {
            ErrorKind::Protocol
        };
        let text = match io {
            Some(io) => describe_io(io),
            None if error.is_incomplete_message() => "connection closed before the response was complete".to_owned(),
            None => describe_hyper(error),
        };
        Self::new(kind, text)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl StdError for Error {}

/// The texts of hyper and of the HTTP/2 layer beneath it: neither holds headers or payload.
fn describe_hyper(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Finds an error of type `T` in a chain of causes.
pub(crate) fn find_cause<'a, T: StdError + 'static>(error: &'a (dyn StdError + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<T>() {
            return Some(found);
        }
        // An `io::Error` does not show its payload as its source, but the source of its payload.
        if let Some(inner) = cause.downcast_ref::<io::Error>().and_then(|io| io.get_ref())
            && let Some(found) = find_cause::<T>(inner)
        {
            return Some(found);
        }
        next = cause.source();
    }
    None
}

/// An operating-system error in the form that operators know: lower case, without the number.
pub(crate) fn describe_io(error: &io::Error) -> String {
    let text = error.to_string();
    let text = match text.rfind(" (os error ") {
        Some(at) => &text[..at],
        None => &text,
    };
    let mut chars = text.chars();
    match chars.next() {
        // Only an ordinary word is put in lower case: an abbreviation keeps its letters.
        Some(first) if !chars.as_str().starts_with(char::is_uppercase) => {
            first.to_lowercase().collect::<String>() + chars.as_str()
        }
        _ => text.to_owned(),
    }
}

/// A status as it is written on the wire, `404 Not Found`; one that nobody has named is its number alone.
pub fn status_text(status: StatusCode) -> String {
    match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => status.as_str().to_owned(),
    }
}

/// What stands in the place of what is not shown.
const MASK: &str = "xxxxx";

/// A URL that may be shown: user information, query values and the fragment are taken out, host and port stay.
///
/// Names of query parameters stay, because they help to recognise the request. Of a text without a scheme only
/// `host:port` is known for what it is, `localhost:9009/path`; any other text that is no URL is replaced as a whole,
/// since nothing is known of where a secret in it would be.
pub fn redact_url(url: &str) -> String {
    let mut out = String::with_capacity(url.len());
    let url = match Url::parse(url) {
        // Without `//` the word before the colon is no scheme of anything that is asked for here: `localhost:9009`.
        Ok(url) if url.has_authority() => url,
        _ => return redact_without_scheme(url).unwrap_or_else(|| "(not a url)".to_owned()),
    };
    out.push_str(url.scheme());
    out.push_str("://");
    if !url.username().is_empty() || url.password().is_some() {
        out.push_str(MASK);
        out.push('@');
    }
    out.push_str(url.host_str().unwrap_or_default());
    if let Some(port) = url.port() {
        out.push(':');
        out.push_str(&port.to_string());
    }
    out.push_str(url.path());
    push_redacted_query(&mut out, url.query());
    out
}

/// `host:port`, with a path and a query, in the form that may be shown. Nothing for any other text.
fn redact_without_scheme(text: &str) -> Option<String> {
    let text = text.split('#').next().unwrap_or_default();
    let (text, query) = text.split_once('?').map_or((text, None), |(text, query)| (text, Some(query)));
    let (authority, path) = text.split_at(text.find('/').unwrap_or(text.len()));
    let (user, address) = authority.rsplit_once('@').map_or((None, authority), |(user, rest)| (Some(user), rest));
    let (host, port) = address.rsplit_once(':')?;
    let is_host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte)),
    };
    let is_port = port.bytes().all(|byte| byte.is_ascii_digit()) && port.parse::<u16>().is_ok();
    // An `@` further on may end a password that was not written as a URL demands.
    if !is_host || !is_port || path.contains(['@', '\\']) || query.is_some_and(|query| query.contains('@')) {
        return None;
    }
    let mut out = String::with_capacity(text.len());
    if user.is_some() {
        out.push_str(MASK);
        out.push('@');
    }
    out.push_str(address);
    out.push_str(path);
    push_redacted_query(&mut out, query);
    Some(out)
}

fn push_redacted_query(out: &mut String, query: Option<&str>) {
    let Some(query) = query else { return };
    for (index, pair) in query.split('&').enumerate() {
        out.push(if index == 0 { '?' } else { '&' });
        // A pair without `=` is a value as likely as a name.
        if let Some((name, _)) = pair.split_once('=') {
            out.push_str(name);
            out.push('=');
        }
        out.push_str(MASK);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_a_shown_url_keeps() {
        for (url, shown) in [
            ("http://127.0.0.1:9090/metrics", "http://127.0.0.1:9090/metrics"),
            ("http://user:hunter2@host/path", "http://xxxxx@host/path"),
            ("http://token@host/path", "http://xxxxx@host/path"),
            ("https://host/a?token=s3cret&x=1#frag", "https://host/a?token=xxxxx&x=xxxxx"),
            ("https://host/a?s3cret", "https://host/a?xxxxx"),
            ("http://[::1]:80/a", "http://[::1]/a"),
            ("localhost:9009", "localhost:9009"),
            ("localhost:9009/a?token=s3cret&s3cret#frag", "localhost:9009/a?token=xxxxx&xxxxx"),
            ("127.0.0.1:9009/a", "127.0.0.1:9009/a"),
            ("[::1]:9009", "[::1]:9009"),
            ("user:hunter2@localhost:9009/a", "xxxxx@localhost:9009/a"),
            ("user:hun@ter2@localhost:9009", "xxxxx@localhost:9009"),
            // Without a port it may all be a password.
            ("user:hunter2@host", "(not a url)"),
            ("localhost:hunter2", "(not a url)"),
            ("localhost:99999", "(not a url)"),
            ("user:12/hunter2@localhost:9009", "(not a url)"),
            ("user:12?hunter2@localhost:9009", "(not a url)"),
            ("mailto:hunter2@host", "(not a url)"),
            ("user:/hunter2@host", "(not a url)"),
            ("http://user:hun/ter2@host:80/", "(not a url)"),
            ("hunter2", "(not a url)"),
            ("not a url with hunter2", "(not a url)"),
            ("", "(not a url)"),
        ] {
            assert_eq!(redact_url(url), shown, "{url}");
        }
    }

    #[test]
    fn a_status_is_shown_with_its_name_if_it_has_one() {
        assert_eq!(status_text(StatusCode::NOT_FOUND), "404 Not Found");
        assert_eq!(status_text(StatusCode::from_u16(599).unwrap()), "599");
    }

    #[test]
    fn io_errors_read_like_the_rest() {
        let refused = io::Error::from_raw_os_error(111);
        assert_eq!(describe_io(&refused), "connection refused");
        assert_eq!(describe_io(&io::Error::other("TLS broke")), "TLS broke");
    }

    proptest! {
        #[test]
        fn redaction_never_panics(text in any::<String>()) {
            redact_url(&text);
        }

        #[test]
        fn redaction_never_leaks_credentials_or_query_values(
            scheme in "https?|socks5|ftp",
            user in "[a-z:@%!]{0,4}QZ[a-z0-9]{4,8}",
            name in "[a-z]{1,6}",
            value in "[a-z=?/+]{0,3}QZ[a-z0-9]{4,8}[a-z#/]{0,3}",
            fragment in "QZ[a-z]{0,5}",
        ) {
            let shown = redact_url(&format!("{scheme}://{user}@host/p?{name}={value}&{value}#{fragment}"));
            // No other part of the URL holds this pair of letters.
            prop_assert!(!shown.contains("QZ"), "{shown}");
            let shown = redact_url(&format!("{user}@host:1/p?{name}={value}&{value}#{fragment}"));
            prop_assert!(!shown.contains("QZ"), "{shown}");
        }

        #[test]
        fn host_and_port_are_always_shown(
            scheme in "(https?://)?",
            user in "([a-z]{1,4}:[a-z0-9]{1,4}@)?",
            host in "[a-z]([a-z0-9]{0,8}|[a-z0-9.]{1,8}[a-z])",
            port in 1_000_u16..,
            rest in "(/[a-z/]{0,6})?([?][a-z]{1,4}=[a-z]{1,4})?",
        ) {
            let shown = redact_url(&format!("{scheme}{user}{host}:{port}{rest}"));
            let masked = if user.is_empty() { "" } else { "xxxxx@" };
            let address = format!("{masked}{host}:{port}");
            prop_assert!(shown.strip_prefix(&scheme).is_some_and(|shown| shown.starts_with(&address)), "{shown}");
        }
    }
}
