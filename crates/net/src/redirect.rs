//! Which redirects are followed and how: the rules of Go's `net/http`, which the reference's components rely on.

use http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use url::Url;

use crate::{Error, ErrorKind};

/// How many redirects are followed for one request.
pub(crate) const REDIRECTS_MAX: usize = 10;

/// What a response says about going on.
#[derive(Debug, PartialEq)]
pub(crate) struct Redirect {
    /// The method of the next request.
    pub(crate) method: Method,
    /// Whether the next request carries the body again.
    pub(crate) keeps_body: bool,
}

/// How to go on after a response with `status` to a request with `method`, if it is a redirect at all.
pub(crate) fn redirect(status: StatusCode, method: &Method) -> Option<Redirect> {
    match status.as_u16() {
        301..=303 => {
            let method = if method == Method::HEAD { Method::HEAD } else { Method::GET };
            Some(Redirect { method, keeps_body: false })
        }
        307 | 308 => Some(Redirect { method: method.clone(), keeps_body: true }),
        _ => None,
    }
}

/// The next URL, `location` taken relative to `from`.
pub(crate) fn target(from: &Url, location: &[u8]) -> Result<Url, Error> {
    // The text of the header may hold a secret and is not shown.
    let invalid = || Error::new(ErrorKind::Redirect, "failed to parse location header");
    let location = std::str::from_utf8(location).map_err(|_| invalid())?;
    let mut url = from.join(location).map_err(|_| invalid())?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(Error::new(ErrorKind::Redirect, format!("unsupported protocol scheme \"{}\"", url.scheme())));
    }
    url.set_fragment(None);
    Ok(url)
}

/// Whether credentials for `from` may be sent to `to`: the same host or one below it. Ports do not matter.
pub(crate) fn may_share_credentials(from: &Url, to: &Url) -> bool {
    let (Some(parent), Some(host)) = (from.host_str(), to.host_str()) else { return false };
    if host.eq_ignore_ascii_case(parent) {
        return true;
    }
    // Below an address there is nothing: `1.10.0.0.1` is not a host of `10.0.0.1`.
    if from.domain().is_none() || to.domain().is_none() || parent.is_empty() {
        return false;
    }
    host.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// Headers that must not reach another host.
const SENSITIVE: [HeaderName; 6] = [
    header::AUTHORIZATION,
    header::COOKIE,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::WWW_AUTHENTICATE,
    HeaderName::from_static("cookie2"),
];

/// Headers that describe a body.
const OF_BODY: [HeaderName; 6] = [
    header::CONTENT_ENCODING,
    header::CONTENT_LANGUAGE,
    header::CONTENT_LENGTH,
    header::CONTENT_LOCATION,
    header::CONTENT_TYPE,
    header::TRANSFER_ENCODING,
];

pub(crate) fn strip_sensitive(headers: &mut HeaderMap) {
    for name in &SENSITIVE {
        headers.remove(name);
    }
}

pub(crate) fn strip_of_body(headers: &mut HeaderMap) {
    for name in &OF_BODY {
        headers.remove(name);
    }
}

/// A request's URL as what the protocol sends, without user information.
pub(crate) fn to_uri(url: &Url) -> Result<Uri, Error> {
    let invalid = || Error::new(ErrorKind::Request, "url is not valid");
    let mut bare = url.clone();
    bare.set_username("").map_err(|()| invalid())?;
    bare.set_password(None).map_err(|()| invalid())?;
    bare.as_str().parse().map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn url(text: &str) -> Url {
        Url::parse(text).unwrap()
    }

    #[test]
    fn the_method_and_body_of_the_next_request() {
        for (status, method, next) in [
            (301, Method::POST, Some((Method::GET, false))),
            (302, Method::PUT, Some((Method::GET, false))),
            (303, Method::HEAD, Some((Method::HEAD, false))),
            (307, Method::POST, Some((Method::POST, true))),
            (308, Method::PUT, Some((Method::PUT, true))),
            (300, Method::GET, None),
            (304, Method::GET, None),
            (200, Method::GET, None),
        ] {
            let next = next.map(|(method, keeps_body)| Redirect { method, keeps_body });
            assert_eq!(redirect(StatusCode::from_u16(status).unwrap(), &method), next, "{status}");
        }
    }

    #[test]
    fn credentials_stay_with_the_host_and_what_is_below_it() {
        for (from, to, may) in [
            ("http://a.com", "https://a.com:8443/x", true),
            ("http://a.com", "http://www.a.com", true),
            ("http://www.a.com", "http://a.com", false),
            ("http://a.com", "http://ba.com", false),
            ("http://a.com", "http://a.com.evil.org", false),
            ("http://10.0.0.1", "http://10.0.0.1:81", true),
            ("http://10.0.0.1", "http://10.0.0.2", false),
            ("http://[::1]", "http://[::1]:81", true),
        ] {
            assert_eq!(may_share_credentials(&url(from), &url(to)), may, "{from} {to}");
        }
    }

    #[test]
    fn a_location_is_relative_to_the_request_and_keeps_no_fragment() {
        for (location, outcome) in [
            ("/b?c=1#d", Ok("http://host:81/b?c=1")),
            ("b", Ok("http://host:81/x/b")),
            ("//other/b", Ok("http://other/b")),
            ("https://other", Ok("https://other/")),
            ("ftp://other", Err("unsupported protocol scheme \"ftp\"")),
            ("http://[", Err("failed to parse location header")),
        ] {
            let next = target(&url("http://host:81/x/a"), location.as_bytes());
            assert_eq!(
                next.as_ref().map(Url::as_str).map_err(ToString::to_string),
                outcome.map_err(str::to_owned),
                "{location}"
            );
        }
    }

    proptest! {
        #[test]
        fn a_location_never_panics_and_always_gives_a_url_that_can_be_sent(location in proptest::collection::vec(any::<u8>(), 0..60)) {
            if let Ok(url) = target(&url("http://host/x"), &location) {
                let _ = to_uri(&url);
                may_share_credentials(&url, &url);
            }
        }
    }
}
