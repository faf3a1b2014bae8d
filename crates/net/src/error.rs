//! What can go wrong with a request, and texts that are safe to show.

use std::error::Error as StdError;
use std::fmt;
use std::io;

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
}

impl Error {
    /// An error of `kind`. The text is lower case without a full stop and must hold no secret.
    pub fn new(kind: ErrorKind, text: impl Into<String>) -> Self {
        Self { kind, text: text.into() }
    }

    /// What kind of failure this is.
    pub fn kind(&self) -> ErrorKind {
        self.kind
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

/// A URL that may be shown: user information, query values and the fragment are taken out.
///
/// Names of query parameters stay, because they help to recognise the request. Text that is not a URL is replaced as
/// a whole, since nothing is known of where a secret in it would be.
pub fn redact_url(url: &str) -> String {
    const MASK: &str = "xxxxx";
    let Ok(url) = Url::parse(url) else { return "(not a url)".to_owned() };
    let mut out = String::with_capacity(url.as_str().len());
    out.push_str(url.scheme());
    out.push(':');
    if url.has_authority() {
        out.push_str("//");
        if !url.username().is_empty() || url.password().is_some() {
            out.push_str(MASK);
            out.push('@');
        }
        out.push_str(url.host_str().unwrap_or_default());
        if let Some(port) = url.port() {
            out.push(':');
            out.push_str(&port.to_string());
        }
    } else if url.cannot_be_a_base() {
        // Such as `mailto:` or a mistyped `user:password@host`: there is no part of it that is known to be harmless.
        out.push_str(MASK);
        return out;
    }
    out.push_str(url.path());
    if let Some(query) = url.query() {
        out.push('?');
        for (index, pair) in query.split('&').enumerate() {
            if index > 0 {
                out.push('&');
            }
            // A pair without `=` is a value as likely as a name.
            if let Some((name, _)) = pair.split_once('=') {
                out.push_str(name);
                out.push('=');
            }
            out.push_str(MASK);
        }
    }
    out
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
            ("user:hunter2@host", "user:xxxxx"),
            ("not a url with hunter2", "(not a url)"),
            ("", "(not a url)"),
        ] {
            assert_eq!(redact_url(url), shown, "{url}");
        }
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
        }
    }
}
