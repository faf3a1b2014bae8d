//! Requests of web pages of other origins (the Fetch standard's CORS protocol), as the reference's library answers them.

use http::header::{self, HeaderName};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use super::arguments::CorsArguments;

/// What is allowed.
#[derive(Debug)]
pub(super) struct Cors {
    /// All of them, if there are none.
    origins: Vec<Origin>,
    /// In lower case; all of them, if there are none.
    headers: Vec<String>,
    exposed: Option<HeaderValue>,
    max_age: Option<HeaderValue>,
}

/// What an origin has to look like, in lower case.
#[derive(Debug, PartialEq, Eq)]
enum Origin {
    Exactly(String),
    /// What it begins and ends with.
    Around(String, String),
}

impl Origin {
    fn matches(&self, origin: &str) -> bool {
        match self {
            Origin::Exactly(wanted) => wanted == origin,
            Origin::Around(start, end) => {
                origin.len() >= start.len() + end.len() && origin.starts_with(&**start) && origin.ends_with(&**end)
            }
        }
    }
}

/// The methods that requests may have.
const METHODS: [Method; 4] = [Method::GET, Method::POST, Method::HEAD, Method::OPTIONS];
/// The headers that stand for the default.
const DEFAULT: &str = "X-Requested-With";
const DEFAULT_HEADERS: [&str; 3] = ["accept", "content-type", "x-requested-with"];

impl Cors {
    /// What the arguments allow; nothing where no origin is allowed.
    pub(super) fn new(arguments: &CorsArguments) -> Option<Self> {
        let CorsArguments { allowed_origins, allowed_headers, exposed_headers, max_age } = arguments;
        if allowed_origins.is_empty() {
            return None;
        }
        let mut origins = Vec::new();
        if !allowed_origins.iter().any(|origin| origin == "*") {
            let lower = allowed_origins.iter().map(|origin| origin.to_lowercase());
            origins.extend(lower.map(|origin| match origin.split_once('*') {
                Some((start, end)) => Origin::Around(start.to_owned(), end.to_owned()),
                None => Origin::Exactly(origin),
            }));
        }
        let headers = if is_default(allowed_headers) {
            DEFAULT_HEADERS.map(str::to_owned).to_vec()
        } else if allowed_headers.iter().any(|name| name == "*") {
            Vec::new()
        } else {
            allowed_headers.iter().map(|name| name.to_lowercase()).collect()
        };
        let exposed: Vec<String> = exposed_headers.iter().map(|name| canonical(name)).collect();
        Some(Cors {
            origins,
            headers,
            exposed: if exposed.is_empty() { None } else { HeaderValue::from_str(&exposed.join(", ")).ok() },
            max_age: (*max_age != 0).then(|| HeaderValue::from((*max_age).max(0))),
        })
    }

    /// Whether a request only asks what is allowed.
    pub(super) fn is_preflight(parts: &Parts) -> bool {
        let method = parts.headers.get(header::ACCESS_CONTROL_REQUEST_METHOD);
        parts.method == Method::OPTIONS && method.is_some_and(|method| !method.is_empty())
    }

    /// The headers of the answer to a request.
    pub(super) fn headers(&self, parts: &Parts) -> HeaderMap {
        let mut answer = HeaderMap::new();
        let is_preflight = Self::is_preflight(parts);
        let vary = if is_preflight {
            "Origin, Access-Control-Request-Method, Access-Control-Request-Headers"
        } else {
            "Origin"
        };
        answer.insert(header::VARY, HeaderValue::from_static(vary));
        let Some(origin) = parts.headers.get(header::ORIGIN).filter(|origin| !origin.is_empty()) else { return answer };
        if !self.allows_origin(origin) {
            return answer;
        }
        let asked = |name: HeaderName| parts.headers.get(name);
        let mut put = |name: HeaderName, value: &HeaderValue| {
            answer.insert(name, value.clone());
        };
        if is_preflight {
            let method = asked(header::ACCESS_CONTROL_REQUEST_METHOD);
            let Some(method) = method.filter(|method| METHODS.iter().any(|known| known.as_str() == **method)) else {
                return answer;
            };
            let names = asked(header::ACCESS_CONTROL_REQUEST_HEADERS);
            if !names.is_none_or(|names| self.allows_headers(names)) {
                return answer;
            }
            put(header::ACCESS_CONTROL_ALLOW_METHODS, method);
            if let Some(names) = names.filter(|names| !names.is_empty()) {
                put(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
            }
            if let Some(max_age) = &self.max_age {
                put(header::ACCESS_CONTROL_MAX_AGE, max_age);
            }
        } else {
            if !METHODS.contains(&parts.method) {
                return answer;
            }
            if let Some(exposed) = &self.exposed {
                put(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
            }
        }
        let all = HeaderValue::from_static("*");
        put(header::ACCESS_CONTROL_ALLOW_ORIGIN, if self.origins.is_empty() { &all } else { origin });
        put(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, &HeaderValue::from_static("true"));
        answer
    }

    fn allows_origin(&self, origin: &HeaderValue) -> bool {
        let origin = String::from_utf8_lossy(origin.as_bytes()).to_lowercase();
        self.origins.is_empty() || self.origins.iter().any(|wanted| wanted.matches(&origin))
    }

    /// Browsers write the names in lower case.
    fn allows_headers(&self, names: &HeaderValue) -> bool {
        let Ok(names) = names.to_str() else { return false };
        let mut names = names.split(',').map(str::trim).filter(|name| !name.is_empty());
        self.headers.is_empty() || names.all(|name| self.headers.iter().any(|allowed| allowed == name))
    }
}

/// Whether a list of headers is the default, or was left empty, which means the same.
pub(super) fn is_default(headers: &[String]) -> bool {
    headers.is_empty() || headers == [DEFAULT]
}

/// A name as Go writes it: each word begins with a capital.
fn canonical(name: &str) -> String {
    let mut up = true;
    let written = name.chars().map(|c| {
        let written = if up { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() };
        up = c == '-';
        written
    });
    written.collect()
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    fn shown(arguments: &CorsArguments, method: &str, headers: &[(&str, &str)]) -> String {
        let mut request = Request::builder().method(method);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = Cors::new(arguments).unwrap().headers(&request.body(()).unwrap().into_parts().0);
        let mut lines: Vec<String> = answer
            .iter()
            .map(|(name, value)| {
                format!("{}={}", name.as_str().replace("access-control-", ""), value.to_str().unwrap())
            })
            .collect();
        lines.sort();
        lines.join("; ")
    }

    fn arguments(origins: &[&str], headers: &[&str]) -> CorsArguments {
        let owned = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        CorsArguments {
            allowed_origins: owned(origins),
            allowed_headers: owned(headers),
            exposed_headers: owned(&["x-one", "ETag"]),
            max_age: 7200,
        }
    }

    #[test]
    fn pages_of_allowed_origins_are_told_so_and_others_are_told_nothing() {
        let some = arguments(&["https://a.example", "http://*.B.example:80"], &["X-Requested-With"]);
        let all = arguments(&["https://a.example", "*"], &["X-A", "x-b"]);
        let any = arguments(&["*"], &["*"]);
        const ASK: &str = "access-control-request-method";
        const NAMES: &str = "access-control-request-headers";
        const VARY: &str = "vary=Origin, Access-Control-Request-Method, Access-Control-Request-Headers";
        for (arguments, method, headers, want) in [
            (&some, "POST", &[][..], "vary=Origin".to_owned()),
            (
                &some,
                "POST",
                &[("origin", "https://A.example")],
                "allow-credentials=true; allow-origin=https://A.example; expose-headers=X-One, Etag; vary=Origin"
                    .to_owned(),
            ),
            (&some, "POST", &[("origin", "https://b.example")], "vary=Origin".to_owned()),
            (
                &some,
                "GET",
                &[("origin", "http://x.y.b.example:80")],
                "allow-credentials=true; allow-origin=http://x.y.b.example:80; expose-headers=X-One, Etag; vary=Origin"
                    .to_owned(),
            ),
            (&some, "PUT", &[("origin", "https://a.example")], "vary=Origin".to_owned()),
            (
                &all,
                "POST",
                &[("origin", "https://b.example")],
                "allow-credentials=true; allow-origin=*; expose-headers=X-One, Etag; vary=Origin".to_owned(),
            ),
            (
                &some,
                "OPTIONS",
                &[("origin", "https://a.example"), (ASK, "POST"), (NAMES, "content-type,x-requested-with")],
                format!(
                    "allow-credentials=true; allow-headers=content-type,x-requested-with; allow-methods=POST; \
                     allow-origin=https://a.example; max-age=7200; {VARY}"
                ),
            ),
            (&some, "OPTIONS", &[("origin", "https://a.example"), (ASK, "POST"), (NAMES, "x-a")], VARY.to_owned()),
            (&some, "OPTIONS", &[("origin", "https://a.example"), (ASK, "PUT")], VARY.to_owned()),
            (&some, "OPTIONS", &[("origin", "https://b.example"), (ASK, "POST")], VARY.to_owned()),
            (&some, "OPTIONS", &[(ASK, "POST")], VARY.to_owned()),
            (
                &all,
                "OPTIONS",
                &[("origin", "x"), (ASK, "POST"), (NAMES, "x-a, x-b")],
                format!(
                    "allow-credentials=true; allow-headers=x-a, x-b; allow-methods=POST; allow-origin=*; \
                     max-age=7200; {VARY}"
                ),
            ),
            (&all, "OPTIONS", &[("origin", "x"), (ASK, "POST"), (NAMES, "content-type")], VARY.to_owned()),
            (
                &any,
                "OPTIONS",
                &[("origin", "x"), (ASK, "GET"), (NAMES, "whatever")],
                format!(
                    "allow-credentials=true; allow-headers=whatever; allow-methods=GET; allow-origin=*; max-age=7200; \
                     {VARY}"
                ),
            ),
        ] {
            assert_eq!(shown(arguments, method, headers), want, "{method} {headers:?}");
        }
    }

    #[test]
    fn without_origins_nothing_is_allowed_and_a_negative_age_is_none() {
        assert!(Cors::new(&arguments(&[], &["*"])).is_none());
        let cors = |max_age| Cors::new(&CorsArguments { max_age, ..arguments(&["*"], &[]) }).unwrap();
        assert_eq!(cors(-5).max_age.unwrap(), "0");
        assert!(cors(0).max_age.is_none());
        assert_eq!(cors(0).headers, DEFAULT_HEADERS);
    }
}
