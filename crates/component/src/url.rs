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
/// Whether it leads anywhere is found out when it is used, as in the reference: an address from an environment variable
/// that is not set makes a component unhealthy, and does not keep the configuration from being loaded.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Url(String);

impl Url {
    /// The text as it was written. What is made of it must not be logged or shown.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the user information stands, with its `@`.
    fn user_information(&self) -> Option<std::ops::Range<usize>> {
        let start = self.0.find("://")? + 3;
        let authority = &self.0[start..];
        let authority = authority.split(['/', '?', '#', '\\']).next().unwrap_or_default();
        Some(start..start + authority.rfind('@')? + 1)
    }

    /// The text without user and password.
    pub fn without_user_information(&self) -> String {
        let mut text = self.0.clone();
        if let Some(range) = self.user_information() {
            text.replace_range(range, "");
        }
        text
    }

    /// The address for a request.
    ///
    /// # Errors
    ///
    /// Why there can be no request to it, without the text.
    pub fn to_uri(&self) -> Result<http::Uri, String> {
        let parsed = match url::Url::parse(&self.0) {
            Ok(parsed) => parsed,
            Err(url::ParseError::RelativeUrlWithoutBase) => return Err("unsupported protocol scheme \"\"".to_owned()),
            Err(error) => return Err(format!("invalid url: {error}")),
        };
        parsed.as_str().parse().map_err(|error: http::uri::InvalidUri| format!("invalid url: {error}"))
    }
}

impl From<&str> for Url {
    fn from(text: &str) -> Self {
        Url(text.to_owned())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Url").field(&redact_url(&self.0)).finish()
    }
}

/// Prints the address without user information, query values and fragment.
impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&redact_url(&self.0))
    }
}

impl Decode for Url {
    const SHAPE: Shape = Shape::Text("string");

    fn decode(value: &Value, _: &ValueContext) -> Result<Self, Mismatches> {
        let text = convert::to_text(value)?;
        if text.chars().any(|c| c.is_ascii_control()) {
            return Err(ValueError::new(value, "net/url: invalid control character in URL").into());
        }
        Ok(Url(text.to_string()))
    }

    fn zero() -> Option<Self> {
        Some(Self::default())
    }

    fn to_value(&self) -> Value {
        // With a password in it, it is shown as little as a password.
        match self.user_information() {
            Some(_) => Value::secret(self.0.as_str()),
            None => Value::string(self.0.as_str()),
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
            assert_eq!(Url::from(text).without_user_information(), without, "{text}");
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
    fn what_leads_nowhere_is_found_out_when_it_is_used() {
        assert_eq!(Url::from("http://host:80/a b").to_uri().map(|uri| uri.to_string()), Ok("http://host/a%20b".into()));
        for (text, error) in [
            ("", "unsupported protocol scheme \"\""),
            ("host/path", "unsupported protocol scheme \"\""),
            ("http://[", "invalid url: invalid IPv6 address"),
        ] {
            assert_eq!(Url::from(text).to_uri(), Err(error.to_owned()), "{text}");
        }
    }
}
