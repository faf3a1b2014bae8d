//! URLs, made more alike.

use corten_otlp::{Arena, Span};

use super::{CLIENT, SERVER};

/// Which URLs are made more alike.
pub(super) struct Urls {
    attributes: Vec<String>,
    pub(super) changes_span_names: bool,
}

/// How many slashes a path has at most; the rest is cut off.
const SLASHES_MAX: usize = 9;

/// What spans of HTTP have one of.
const HTTP_ATTRIBUTES: [&[u8]; 9] = [
    b"http.route",
    b"http.request.method",
    b"http.request.method_original",
    b"http.response.status_code",
    b"url.full",
    b"http.scheme",
    b"http.target",
    b"http.method",
    b"http.url",
];

impl Urls {
    pub(super) fn new(attributes: &[String], changes_span_names: bool) -> Self {
        Urls { attributes: attributes.to_vec(), changes_span_names }
    }

    pub(super) fn has_attribute(&self, key: &[u8]) -> bool {
        self.attributes.iter().any(|known| known.as_bytes() == key)
    }

    /// A path whose parts that look like identifiers are asterisks, without what follows the path.
    pub(super) fn cluster(&self, url: &[u8]) -> Vec<u8> {
        let end = url.iter().position(|byte| b"?&#".contains(byte));
        let path = &url[..end.unwrap_or(url.len())];
        let parts = path.split(|byte| *byte == b'/');
        let last = parts.clone().count() - 1;
        let mut out = Vec::with_capacity(path.len());
        for (at, part) in parts.enumerate().take(SLASHES_MAX + 1) {
            if at > 0 {
                out.push(b'/');
            }
            // What stands before a query is looked at less closely.
            let is_kept = is_made_of_letters(part) && (at == last && end.is_some() || is_word(part));
            out.extend_from_slice(if is_kept { part } else { b"*" });
        }
        out
    }

    /// The name of a span of an HTTP client or server, if something of it stays.
    pub(super) fn cluster_span_name(&self, span: &Span, arena: &Arena) -> Option<Vec<u8>> {
        let name = arena.bytes(span.name);
        let has_http = || HTTP_ATTRIBUTES.iter().any(|key| arena.get(span.attributes, key).is_some());
        if !matches!(span.kind, CLIENT | SERVER) || !(name.contains(&b'/') || has_http()) {
            return None;
        }
        let made = self.cluster(name);
        let is_nothing =
            made.contains(&b'*') && made.split(|byte| *byte == b'/').all(|part| matches!(part, b"" | b"*"));
        (made != name && !is_nothing).then_some(made)
    }
}

/// Whether all bytes are such as words have, but for one in the second place, as in `v1`.
fn is_made_of_letters(part: &[u8]) -> bool {
    let is_letter = |byte: &u8| byte.is_ascii_alphabetic() || b"-_. ".contains(byte);
    part.iter().enumerate().all(|(at, byte)| at == 1 || is_letter(byte))
}

/// Below this many pairs of letters nothing is said of a text.
const PAIRS_MIN: usize = 3;
/// The most that a pair may cost in a word, on average, in tenths.
const COST_TENTHS_MAX: usize = 59;

/// Whether letters follow each other as they do in words.
fn is_word(part: &[u8]) -> bool {
    let letter = |byte: u8| byte.is_ascii_alphabetic().then(|| usize::from(byte.to_ascii_lowercase() - b'a'));
    let costs = part.windows(2).filter_map(|pair| {
        let cost = char::from(COSTS[letter(pair[0])?][letter(pair[1])?]).to_digit(16)?;
        Some(cost as usize)
    });
    let (pairs, cost) = costs.fold((0, 0), |(pairs, sum), cost| (pairs + 1, sum + cost));
    pairs < PAIRS_MIN || cost * 10 <= pairs * COST_TENTHS_MAX
}

/// How unlikely it is that a letter, a line, is followed by another one, a column, in the words that texts about programs are
/// made of: five quarters of the logarithm of the share, to base 2, as a hexadecimal digit.
const COSTS: [&[u8; 26]; 26] = [
    b"a65699696a7454a6c454779a8a", // a
    b"4778498947938948c5574ab97a", // b
    b"4a6949b46b558a38b6746abc8a", // c
    b"4786288939968858b658699c8c", // d
    b"685477797b956497934597868a", // e
    b"5a77459b3da58849c5665bab7d", // f
    b"497839754bb57558c4575aab99", // g
    b"3a993aba4c977749b6766b8d7d", // h
    b"6656676bbb856257c655a7c8b7", // i
    b"3877389849787737a858498cab", // j
    b"488828764a868748b6576a8c7c", // k
    b"4986389b3c949948da6669bc5b", // l
    b"368839ab4b976944c9696abb8d", // m
    b"595446395a789759b94478ac9a", // n
    b"876687798a855366d45656699a", // o
    b"4a8839865c959945c4656bab7e", // p
    b"78888aba7bc688999776189bbb", // q
    b"4876397a4c876748c65578ad7b", // r
    b"595939954c777956a9535a8c7a", // s
    b"497838a53ca78958d4567b9b69", // t
    b"6567577a6b855385e444abb9a9", // u
    b"3989299b3fb88959d87899ab9c", // v
    b"387739953c978549c5588b9bab", // w
    b"585747984da76873b863789689", // x
    b"476758795d855563b645698a88", // y
    b"489829964a877859c9787a9b66", // z
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_an_identifier_becomes_an_asterisk() {
        let urls = Urls::new(&[], false);
        for (url, want) in [
            ("", ""),
            ("/users/fdklsd/j4elk/23993/job/2", "/users/*/j4elk/*/job/*"),
            ("123", "*"),
            ("123/", "*/"),
            ("123/ljgdflgjf", "*/*"),
            ("/**", "/*"),
            ("/v1/products/22j", "/v1/products/*"),
            ("/products//org/3", "/products//org/*"),
            ("/v1/k6-test-runs/1", "/v1/k6-test-runs/*"),
            ("/usuarios/fdklsd/23993/trabajo/2", "/usuarios/*/*/trabajo/*"),
            ("/Benutzer/fdklsd/Arbeit/2", "/Benutzer/*/Arbeit/*"),
            ("/api/hello.world.again", "/api/hello.world.again"),
            ("GET /user_space/", "GET /user_space/"),
            ("/attach?session_id=ddfsdsf&track_id=sjdklnfldsn", "/attach"),
            ("GET /api/cart?sessionId=55f4e5ea-5d6d-482a", "GET /api/cart"),
            ("/w/index.php/*", "/w/index.php/*"),
            ("?", ""),
            ("attach12?", "*"),
            ("/1#", "/*"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h/i"),
            ("/a/b/c/d/e/f/g/h/12/13/14", "/a/b/c/d/e/f/g/h/*"),
            ("/\u{fc}ber/\0", "/*/*"),
        ] {
            assert_eq!(String::from_utf8(urls.cluster(url.as_bytes())).unwrap(), want, "{url}");
        }
    }
}
