//! The files of the web interface, which the build put into the program.

use std::io::{Read as _, Write as _};

use bytes::Bytes;
use corten_net::{ServerBody, empty_body, full_body};
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};

use crate::encoding::Coding;
use crate::path;

/// A file.
struct Asset {
    /// Below the folder of the web interface.
    path: &'static str,
    content_type: &'static str,
    /// Changes with the contents. In quotes.
    etag: &'static str,
    /// How long it is.
    bytes: usize,
    gzip: &'static [u8],
}

static ASSETS: &[Asset] = include!(concat!(env!("OUT_DIR"), "/assets.rs"));

/// Where the files are whose names change with their contents.
const HASHED: &str = "assets/";
/// What index.html says of the place that paths are below.
const BASE: &str = "<base href=\"/\"";
/// What the pages may do. They show what others wrote: whatever got past the escapes would still be no script.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'self'; form-action 'none'; frame-ancestors 'none'";

/// The web interface at its place.
#[derive(Debug)]
pub(crate) struct Assets {
    index: Bytes,
    index_gzip: Bytes,
    index_etag: String,
}

impl Assets {
    /// The web interface below a prefix, as [`path::normal_prefix`] gives it.
    pub(crate) fn below(prefix: &str) -> Self {
        let index = ASSETS.iter().find(|asset| asset.path == "index.html");
        let text = index.map(|index| String::from_utf8_lossy(&unpacked(index)).into_owned()).unwrap_or_default();
        let base = format!("<base href=\"{}/\"", escaped(&path::encode(prefix)));
        let text = text.replacen(BASE, &base, 1);
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        // Writing to memory does not fail; without the compressed form the plain one is sent.
        let compressed = encoder.write_all(text.as_bytes()).and_then(|()| encoder.finish()).unwrap_or_default();
        // The same file below another prefix is another one.
        let tag = index.map_or("", |index| index.etag).trim_matches('"');
        let prefix: String = prefix.bytes().map(|byte| format!("{byte:02x}")).collect();
        Assets { index: text.into(), index_gzip: compressed.into(), index_etag: format!("\"{tag}-{prefix}\"") }
    }

    /// What lies at a path below the prefix. What is no file is a place in the interface, which the one page shows; nothing
    /// for a file that there is not.
    pub(crate) fn answer(&self, path: &str, headers: &HeaderMap) -> Option<Response<ServerBody>> {
        let path = path.strip_prefix('/').unwrap_or(path);
        let gzip = Coding::accepts_gzip(headers);
        let asset = ASSETS.iter().find(|asset| asset.path == path && path != "index.html");
        let Some(asset) = asset else {
            let body = || if gzip { self.index_gzip.clone() } else { self.index.clone() };
            let page = || respond(&self.index_etag, "text/html; charset=utf-8", "no-cache", gzip, headers, &body);
            return (!path.starts_with(HASHED)).then(page);
        };
        let cache = match asset.path.starts_with(HASHED) {
            true => "public, max-age=31536000, immutable",
            false => "no-cache",
        };
        let body = || match gzip {
            true => Bytes::from_static(asset.gzip),
            false => Bytes::from(unpacked(asset)),
        };
        Some(respond(asset.etag, asset.content_type, cache, gzip, headers, &body))
    }
}

fn respond(
    etag: &str,
    content_type: &'static str,
    cache: &'static str,
    gzip: bool,
    headers: &HeaderMap,
    body: &dyn Fn() -> Bytes,
) -> Response<ServerBody> {
    let known = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = known.flat_map(|value| value.split(',')).map(str::trim);
    let unchanged = known.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag);
    let mut response = match unchanged {
        true => Response::new(empty_body()),
        false => Response::new(full_body(body())),
    };
    if unchanged {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    }
    let headers = response.headers_mut();
    if !unchanged {
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        if gzip {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    for (name, value) in [
        (header::CACHE_CONTROL, cache),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::VARY, "Accept-Encoding"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    // Weak, because it is the same whether the file is compressed or not.
    if let Ok(etag) = HeaderValue::from_str(&format!("W/{etag}")) {
        headers.insert(header::ETAG, etag);
    }
    response
}

fn unpacked(asset: &Asset) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(asset.bytes);
    // The build has compressed it.
    let _ = GzDecoder::new(asset.gzip).read_to_end(&mut bytes);
    bytes
}

/// Text with nothing that HTML would read within quotes.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('"', "&quot;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_can_be_unpacked_and_the_page_says_where_paths_are_below() {
        for asset in ASSETS {
            assert_eq!(unpacked(asset).len(), asset.bytes, "{}", asset.path);
        }
        for (prefix, base) in [("", "<base href=\"/\""), ("/a b/c", "<base href=\"/a%20b/c/\"")] {
            let index = Assets::below(prefix).index;
            let index = String::from_utf8_lossy(&index);
            assert!(index.contains(base), "{index}");
        }
        // A prefix that is no path cannot leave its place.
        let index = Assets::below("/\"><script>&").index;
        let index = String::from_utf8_lossy(&index);
        assert!(index.contains("<base href=\"/%22%3E%3Cscript%3E&amp;/\""), "{index}");
    }

    #[test]
    fn the_files_are_small_enough_for_a_slow_line() {
        let all: usize = ASSETS.iter().map(|asset| asset.gzip.len()).sum();
        assert!(all < 200 << 10, "{all} bytes");
    }
}
