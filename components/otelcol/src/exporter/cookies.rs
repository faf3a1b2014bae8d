//! Cookies of servers, RFC 6265.

use std::time::{Duration, Instant, SystemTime};

use http::{HeaderMap, HeaderValue, Uri, header};
use parking_lot::Mutex;

/// The most cookies that are kept.
const COOKIES_MAX: usize = 64;
/// The longest cookie that is kept, in bytes.
const COOKIE_BYTES_MAX: usize = 4096;

/// The cookies that servers asked to be sent back.
#[derive(Debug, Default)]
pub(crate) struct Cookies(Mutex<Vec<Cookie>>);

#[derive(Debug)]
struct Cookie {
    name: String,
    value: String,
    /// In lower case.
    domain: String,
    /// Whether it is also for the hosts below the domain.
    with_hosts_below: bool,
    path: String,
    secure: bool,
    /// When it ends; with the process, if there is none.
    ends: Option<Instant>,
}

impl Cookies {
    /// Keeps what an answer from an address asks to keep.
    pub(crate) fn keep(&self, uri: &Uri, answer: &HeaderMap) {
        let now = Instant::now();
        for value in answer.get_all(header::SET_COOKIE) {
            let Some(cookie) = value.to_str().ok().and_then(|text| Cookie::read(text, uri, now)) else { continue };
            let mut cookies = self.0.lock();
            cookies.retain(|known| !known.is_same(&cookie) && known.ends.is_none_or(|ends| ends > now));
            if cookie.ends.is_none_or(|ends| ends > now) && cookies.len() < COOKIES_MAX {
                cookies.push(cookie);
            }
        }
    }

    /// The header for a request to an address, if there is any.
    pub(crate) fn header(&self, uri: &Uri) -> Option<HeaderValue> {
        let now = Instant::now();
        let cookies = self.0.lock();
        let mut sent: Vec<&Cookie> = cookies.iter().filter(|cookie| cookie.is_for(uri, now)).collect();
        // The longer path is the more exact one.
        sent.sort_by_key(|cookie| std::cmp::Reverse(cookie.path.len()));
        let sent: Vec<String> = sent.iter().map(|cookie| format!("{}={}", cookie.name, cookie.value)).collect();
        let mut header = HeaderValue::from_str(&sent.join("; ")).ok().filter(|header| !header.is_empty())?;
        header.set_sensitive(true);
        Some(header)
    }
}

fn host(uri: &Uri) -> String {
    uri.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase()
}

/// Whether a host is a domain's, or one below it.
fn is_below(host: &str, domain: &str) -> bool {
    host.strip_suffix(domain).is_some_and(|front| front.is_empty() || front.ends_with('.'))
}

impl Cookie {
    fn read(text: &str, uri: &Uri, now: Instant) -> Option<Self> {
        if text.len() > COOKIE_BYTES_MAX {
            return None;
        }
        let mut parts = text.split(';').map(str::trim);
        let (name, value) = parts.next()?.split_once('=')?;
        let (name, value) = (name.trim(), value.trim().trim_matches('"'));
        if name.is_empty() {
            return None;
        }
        let folder = uri.path().rsplit_once('/').map_or("", |(folder, _)| folder);
        let mut cookie = Cookie {
            name: name.to_owned(),
            value: value.to_owned(),
            domain: host(uri),
            with_hosts_below: false,
            path: if folder.is_empty() { "/".to_owned() } else { folder.to_owned() },
            secure: false,
            ends: None,
        };
        let mut max_age = None;
        for part in parts {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            match name.trim().to_ascii_lowercase().as_str() {
                "domain" => {
                    let domain = value.trim().trim_start_matches('.').to_ascii_lowercase();
                    let is_address = cookie.domain.parse::<std::net::IpAddr>().is_ok();
                    if domain.is_empty() || domain == cookie.domain {
                        cookie.with_hosts_below = !domain.is_empty() && !is_address;
                    } else if is_address || !domain.contains('.') || !is_below(&cookie.domain, &domain) {
                        // A server speaks for its own domain only, and none for all of `com`.
                        return None;
                    } else {
                        (cookie.domain, cookie.with_hosts_below) = (domain, true);
                    }
                }
                "path" if value.trim().starts_with('/') => value.trim().clone_into(&mut cookie.path),
                "secure" => cookie.secure = true,
                "max-age" => max_age = value.trim().parse::<i64>().ok().or(max_age),
                "expires" => {
                    if let Ok(at) = httpdate::parse_http_date(value.trim()) {
                        let left = at.duration_since(SystemTime::now()).unwrap_or_default();
                        cookie.ends = Some(now.checked_add(left).unwrap_or(now));
                    }
                }
                _ => {}
            }
        }
        if let Some(seconds) = max_age {
            let seconds = u64::try_from(seconds).unwrap_or_default().min(u64::from(u32::MAX));
            cookie.ends = Some(now + Duration::from_secs(seconds));
        }
        Some(cookie)
    }

    fn is_same(&self, other: &Self) -> bool {
        self.name == other.name && self.domain == other.domain && self.path == other.path
    }

    fn is_for(&self, uri: &Uri, now: Instant) -> bool {
        let (host, path) = (host(uri), uri.path());
        let host_fits = if self.with_hosts_below { is_below(&host, &self.domain) } else { host == self.domain };
        let path_fits = path
            .strip_prefix(&self.path)
            .is_some_and(|rest| rest.is_empty() || self.path.ends_with('/') || rest.starts_with('/'));
        let is_secure = !self.secure || uri.scheme_str() == Some("https");
        host_fits && path_fits && is_secure && self.ends.is_none_or(|ends| ends > now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sent(from: &str, cookies: &[&str], to: &str) -> String {
        let jar = Cookies::default();
        let mut answer = HeaderMap::new();
        for cookie in cookies {
            answer.append(header::SET_COOKIE, cookie.parse().unwrap());
        }
        jar.keep(&from.parse().unwrap(), &answer);
        jar.header(&to.parse().unwrap()).map(|header| header.to_str().unwrap().to_owned()).unwrap_or_default()
    }

    #[test]
    fn a_cookie_goes_back_where_it_may() {
        let at = "http://a.example.com/v1/logs";
        for (cookies, to, header) in [
            (&["a=1"][..], at, "a=1"),
            (&["a=1"], "http://a.example.com/v2/logs", ""),
            (&["a=1; Path=/"], "http://a.example.com/v2", "a=1"),
            (&["a=1; path=/v1", "b=2; path=/v1/logs"], at, "b=2; a=1"),
            (&["a=1; path=/v"], at, ""),
            (&["a=1", "a=2"], at, "a=2"),
            (&["a=1", "a=2; Max-Age=0"], at, ""),
            (&["a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT"], at, ""),
            (&["a=1; Expires=Thu, 01 Jan 1970 00:00:00 GMT; Max-Age=9"], at, "a=1"),
            (&["a=1; Secure"], at, ""),
            (&["a=1; Secure"], "https://a.example.com/v1/logs", "a=1"),
            (&["a=1"], "http://b.a.example.com/v1/logs", ""),
            (&["a=1; Domain=.example.com"], "http://b.example.com/v1/logs", "a=1"),
            (&["a=1; Domain=com"], at, ""),
            (&["a=1; Domain=other.org"], at, ""),
            (&["a=1; Domain=b.a.example.com"], at, ""),
            (&["=1", "a"], at, ""),
        ] {
            assert_eq!(sent(at, cookies, to), header, "{cookies:?} to {to}");
        }
    }

    proptest! {
        #[test]
        fn no_cookie_makes_it_panic(text in "[ -~]{0,200}") {
            let uri = "http://h/p".parse().unwrap();
            let _ = Cookie::read(&text, &uri, Instant::now());
        }
    }
}
