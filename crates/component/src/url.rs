//! The address of something that is reached over HTTP, as an argument.

use std::fmt;

use corten_config::convert;
use corten_config::decode::{Decode, Mismatches, ValueContext};
use corten_config::error::ValueError;
use corten_config::schema::Shape;
use corten_config::value::Value;
use corten_net::redact_url;

/// An address, as the user wrote it. It may hold a password, and is shown without.
///
/// What the user wrote is shown as an argument as it was written, query and all, unless it has user information or was
/// made from a secret: then it is shown as a secret. Errors, logs, health and labels go by [`Display`](fmt::Display) and
/// the methods below; none of them shows user information, and none but [`Url::for_label`] the values of a query.
///
/// Whether it leads anywhere is found out when it is used, as in the reference: an address from an environment variable
/// that is not set makes a component unhealthy, and does not keep the configuration from being loaded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Url {
    text: String,
    /// Whether a secret went into it, wherever in it that is.
    is_secret: bool,
}

/// What is shown of an address that was made from a secret.
const SECRET: &str = "(secret)";

impl Url {
    /// The text as it was written. What is made of it must not be logged or shown.
    pub fn expose(&self) -> &str {
        &self.text
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// Where the user information stands, with its `@`.
    fn user_information(&self) -> Option<std::ops::Range<usize>> {
        let start = self.text.find("://")? + 3;
        let authority = &self.text[start..];
        let authority = authority.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        Some(start..start + authority.rfind('@')? + 1)
    }

    /// The address as the value of a label: without user and password, and not at all if it was made from a secret.
    pub fn for_label(&self) -> String {
        if self.is_secret {
            return SECRET.to_owned();
        }
        let mut text = self.text.clone();
        if let Some(range) = self.user_information() {
            text.replace_range(range, "");
        }
        text
    }

    /// An error about a request to this address, in words that may be shown. The client leaves out user information and
    /// query values by itself; of an address that was made from a secret nothing is left, because it may stand in the path.
    pub fn in_error(&self, error: &corten_net::Error) -> String {
        let text = error.to_string();
        match self.to_uri() {
            Ok(uri) if self.is_secret => text.replace(&redact_url(&uri.to_string()), SECRET),
            _ => text,
        }
    }

    /// The address for a request over HTTP.
    ///
    /// # Errors
    ///
    /// Why there can be no request to it, without the text.
    pub fn to_uri(&self) -> Result<http::Uri, String> {
        let parsed = match url::Url::parse(&self.text) {
            Ok(parsed) => parsed,
            Err(url::ParseError::RelativeUrlWithoutBase) => return Err("unsupported protocol scheme \"\"".to_owned()),
            Err(error) => return Err(format!("invalid url: {error}")),
        };
        if !matches!(parsed.scheme(), "http" | "https") {
            // `user:password@host` has a scheme as well.
            let scheme = if parsed.cannot_be_a_base() { "" } else { parsed.scheme() };
            return Err(format!("unsupported protocol scheme {scheme:?}"));
        }
        parsed.as_str().parse().map_err(|error: http::uri::InvalidUri| format!("invalid url: {error}"))
    }
}

impl From<&str> for Url {
    fn from(text: &str) -> Self {
        Url { text: text.to_owned(), is_secret: false }
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Url").field(&self.to_string()).finish()
    }
}

/// Prints the address without user information, query values and fragment, and nothing of one made from a secret.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_secret { f.write_str(SECRET) } else { f.write_str(&redact_url(&self.text)) }
    }
}

impl Decode for Url {
    const SHAPE: Shape = Shape::Text("string");

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        let text = convert::to_text(value)?;
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(ValueError::new(value, "net/url: invalid control character in URL").into());
        }
        Ok(Url { text: text.to_string(), is_secret: value.is_masked() })
    }

    fn zero() -> Option<Self> {
        Some(Self::default())
    }

    fn to_value(&self) -> Value {
        // With a password in it, it is shown as little as a password.
        match self.user_information() {
            Some(_) => Value::secret(self.text.as_str()),
            None => Value::string(self.text.as_str()).marked(self.is_secret),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_password_are_left_out() {
        for (text, without) in [
            ("http://host/a", "http://host/a"),
            ("http://user:p%40ss@host:1/a?b=c@d", "http://host:1/a?b=c@d"),
            ("https://a@b@host", "https://host"),
            ("http://host/a@b", "http://host/a@b"),
            ("http://host?a@b", "http://host?a@b"),
            ("user:secret@host", "user:secret@host"),
            ("", ""),
        ] {
            assert_eq!(Url::from(text).for_label(), without, "{text}");
        }
    }

    #[test]
    fn a_password_is_not_shown() {
        let url = Url::from("http://user:hunter2@host/");
        assert!(!format!("{url:?} {url} {}", url.to_value()).contains("hunter2"));
        assert_eq!(url.to_value().to_string(), "(secret)");
        assert_eq!(Url::from("http://host/").to_value().to_string(), "\"http://host/\"");
    }

    #[test]
    fn nothing_is_shown_of_what_was_made_from_a_secret() {
        let value = Value::string("http://127.0.0.1:1/hunter2?token=hunter2").marked(true);
        let cx = ValueContext { minimum: corten_config::schema::Stability::GenerallyAvailable, checking: false };
        let url = Url::decode(&value, &cx).unwrap();
        assert_eq!(url.expose(), "http://127.0.0.1:1/hunter2?token=hunter2");
        let error = corten_net::Error::new(
            corten_net::ErrorKind::Connect,
            "Get \"http://127.0.0.1:1/hunter2?token=xxxxx\": dial tcp 127.0.0.1:1: connection refused",
        );
        let shown = format!("{url} {url:?} {} {} {}", url.for_label(), url.to_value(), url.in_error(&error));
        assert!(!shown.contains("hunter2"), "{shown}");
        assert_eq!(url.in_error(&error), "Get \"(secret)\": dial tcp 127.0.0.1:1: connection refused");
        let plain = Url::from("http://127.0.0.1:1/hunter2?token=hunter2");
        assert_eq!(plain.in_error(&error), error.to_string());
        assert_eq!(plain.to_value().to_string(), "\"http://127.0.0.1:1/hunter2?token=hunter2\"");
    }

    #[test]
    fn what_leads_nowhere_is_found_out_when_it_is_used() {
        assert_eq!(Url::from("http://host:80/a b").to_uri().map(|uri| uri.to_string()), Ok("http://host/a%20b".into()));
        for (text, error) in [
            ("", "unsupported protocol scheme \"\""),
            ("host/path", "unsupported protocol scheme \"\""),
            ("http://[", "invalid url: invalid IPv6 address"),
            ("http://", "invalid url: empty host"),
            ("http://host:port/", "invalid url: invalid port number"),
            ("ftp://host/", "unsupported protocol scheme \"ftp\""),
            ("localhost:9009/path", "unsupported protocol scheme \"\""),
            ("user:hunter2@host", "unsupported protocol scheme \"\""),
        ] {
            assert_eq!(Url::from(text).to_uri(), Err(error.to_owned()), "{text}");
        }
    }
}
