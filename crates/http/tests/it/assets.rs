//! The files of the web interface.

use std::io::Read as _;

use crate::support::{Fixture, run};

const PAGE: &str = "text/html; charset=utf-8";

/// A file that the page names.
fn script(page: &str) -> String {
    let at = page.find("assets/").unwrap_or_else(|| panic!("no file: {page}"));
    page[at..].split('"').next().unwrap_or_default().to_owned()
}

#[test]
fn every_place_of_the_interface_is_the_one_page() {
    run(async {
        let api = Fixture::new("").await;
        let index = api.get("/").await;
        assert!(index.text().contains("<base href=\"/\""), "{}", index.text());
        for path in [
            "/index.html",
            "/graph",
            "/graph/mod.x",
            "/component/test.sink.a",
            "/component/a%2Fb%20c",
            "/component/../../etc/passwd",
            "/component/%2e%2e%2f%2e%2e%2fetc%2fpasswd",
            "/clustering",
            "/remotecfg",
            "/graphql",
            "/debug/test.sink.a",
            "/-/ready/",
            "/assets",
            "//",
            "/nothing.js",
        ] {
            let page = api.get(path).await;
            assert_eq!((page.status, page.header("content-type"), page.text()), (200, PAGE, index.text()), "{path}");
            assert_eq!(page.header("cache-control"), "no-cache", "{path}");
        }
        let policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      base-uri 'self'; form-action 'none'; frame-ancestors 'none'";
        assert_eq!(index.header("content-security-policy"), policy);
        assert_eq!(index.header("x-content-type-options"), "nosniff");
        for path in ["/assets/nothing.js", "/assets/", "/assets/../index.html", "/assets/..%2findex.html"] {
            assert_eq!(api.get(path).await.status, 404, "{path}");
        }
        api.end().await;
    });
}

#[test]
fn files_are_kept_as_long_as_their_names_say_and_sent_once() {
    run(async {
        let api = Fixture::with_prefix("", "/x/y").await;
        let index = api.get("/x/y/component/a.b").await;
        assert!(index.text().contains("<base href=\"/x/y/\""), "{}", index.text());
        let path = format!("/x/y/{}", script(index.text()));
        let plain = api.get(&path).await;
        assert_eq!((plain.status, plain.header("content-encoding")), (200, ""));
        assert_eq!(plain.header("cache-control"), "public, max-age=31536000, immutable");
        assert_eq!(plain.header("vary"), "Accept-Encoding");
        let packed = api.get_with(&path, &[("accept-encoding", "gzip, br")]).await;
        assert_eq!(packed.header("content-encoding"), "gzip");
        let mut text = Vec::new();
        flate2::read::GzDecoder::new(&*packed.body).read_to_end(&mut text).expect("gzip");
        assert_eq!(text, plain.body);
        assert_eq!(packed.header("etag"), plain.header("etag"));
        for (of, path) in [(&plain, path.as_str()), (&index, "/x/y/")] {
            let etag = of.header("etag");
            let strong = etag.strip_prefix("W/").unwrap_or_else(|| panic!("{etag}"));
            assert!(strong.starts_with('"') && strong.ends_with('"') && strong.len() > 4, "{etag}");
            for known in [etag.to_owned(), strong.to_owned(), format!("\"other\", {etag}"), "*".to_owned()] {
                let unchanged = api.get_with(path, &[("if-none-match", &known)]).await;
                assert_eq!((unchanged.status, unchanged.body.len()), (304, 0), "{known}");
                assert_eq!(unchanged.header("etag"), etag);
            }
            assert_eq!(api.get_with(path, &[("if-none-match", "\"other\"")]).await.status, 200);
            let head = api.head(path).await;
            assert_eq!((head.status, head.body.len(), head.header("etag")), (200, 0, etag));
            assert_eq!(head.header("content-length"), of.body.len().to_string());
        }
        assert_ne!(api.get("/x/y/").await.header("etag"), plain.header("etag"));
        api.end().await;
    });
}
