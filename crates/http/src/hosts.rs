//! By which names the API may be reached.
//!
//! A page of any site can have its own name lead to this machine once it is loaded. Its browser then takes what the program
//! answers for the site's own, and lets the page read it and send whatever it likes. What gives such a page away is the name
//! that its requests have in the `Host` header: nobody else calls this machine so.

use std::net::{IpAddr, SocketAddr};

use http::uri::Authority;
use http::{HeaderMap, Uri, header};

/// By which names a server is reached besides its addresses and `localhost`.
#[derive(Clone, Debug, Default)]
pub struct HostNames {
    /// Those that it has itself.
    pub own: Vec<String>,
    /// Those that the user allows, `*` for all of them. Where there are none, they are looked at only where the server listens
    /// at a loopback address: who listens to the network is reached by names that the program does not know.
    pub allowed: Vec<String>,
}

/// The names by which a server may be reached.
#[derive(Debug)]
pub(crate) struct Hosts(Vec<String>);

impl Hosts {
    /// Those of a server that listens at an address; nothing where any name will do.
    pub(crate) fn of(names: &HostNames, address: SocketAddr) -> Option<Self> {
        let all = names.allowed.iter().any(|name| name == "*");
        if all || (names.allowed.is_empty() && !address.ip().to_canonical().is_loopback()) {
            return None;
        }
        let names = names.own.iter().chain(&names.allowed).map(|name| host_of(name));
        Some(Hosts(names.filter(|name| !name.is_empty()).collect()))
    }

    /// Whether a request names this server. One without a name is from no browser.
    ///
    /// # Errors
    ///
    /// What is wrong with the name.
    pub(crate) fn check(&self, uri: &Uri, headers: &HeaderMap) -> Result<(), String> {
        let authority = uri.authority().map(Authority::as_str).map(str::as_bytes);
        let hosts = headers.get_all(header::HOST).iter().map(|host| host.as_bytes());
        for host in authority.into_iter().chain(hosts) {
            let host = String::from_utf8_lossy(host);
            if !self.takes(&host_of(&host)) {
                let name = corten_syntax::quote(&host);
                return Err(format!(
                    "the request is for {name}, a name that this program does not know: whoever reaches it so on purpose \
                     names it with --server.http.allowed-hosts"
                ));
            }
        }
        Ok(())
    }

    fn takes(&self, host: &str) -> bool {
        // An address and what ends in `localhost` lead to no other place, whatever a site says of its name.
        host.parse::<IpAddr>().is_ok()
            || host == "localhost"
            || host.ends_with(".localhost")
            || self.0.iter().any(|name| name == host)
    }
}

/// The name or address of `name:port`, in lower case and as browsers and people write it.
fn host_of(text: &str) -> String {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.split_once(']'));
    let host = match bracketed.filter(|(_, port)| port.is_empty() || port.starts_with(':')) {
        Some((host, _)) => host,
        // An address of version 6 without brackets has more than one colon, and no port.
        None if text.matches(':').count() > 1 => text,
        None => text.split(':').next().unwrap_or_default(),
    };
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use http::{HeaderValue, Request};
    use proptest::prelude::*;

    use super::*;

    fn hosts(own: &[&str], allowed: &[&str], address: &str) -> Option<Hosts> {
        let owned = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        Hosts::of(&HostNames { own: owned(own), allowed: owned(allowed) }, address.parse().unwrap())
    }

    fn passes(hosts: &Hosts, host: &[u8]) -> bool {
        let host = HeaderValue::from_bytes(host).unwrap();
        hosts.check(&Uri::from_static("/"), &HeaderMap::from_iter([(header::HOST, host)])).is_ok()
    }

    #[test]
    fn a_name_that_is_not_ours_is_refused() {
        let hosts = hosts(&["Box.Lan", ""], &["corten.example.com:443"], "127.0.0.1:12345").unwrap();
        for host in [
            "127.0.0.1:12345",
            "127.0.0.1",
            "[::1]:12345",
            "192.0.2.1",
            "localhost:12345",
            "LOCALHOST",
            "localhost.",
            "app.localhost:1",
            "box.lan:12345",
            "corten.example.com",
        ] {
            assert!(passes(&hosts, host.as_bytes()), "{host}");
        }
        for host in [
            "evil.example:12345",
            "",
            ":12345",
            "notlocalhost",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evil.example#127.0.0.1",
            "box.lan.evil.example",
            "sub.corten.example.com",
            "[::1].evil.example",
            "[evil.example]",
            "evil.example:127.0.0.1:1",
        ] {
            assert!(!passes(&hosts, host.as_bytes()), "{host}");
        }
        assert!(!passes(&hosts, b"\xff"));
    }

    #[test]
    fn every_name_of_a_request_counts_and_none_will_do() {
        let hosts = hosts(&[], &[], "[::1]:1").unwrap();
        let check = |uri: &str, names: &[&str]| {
            let request = names.iter().fold(Request::get(uri), |request, name| request.header("host", *name));
            let request = request.body(()).unwrap();
            hosts.check(request.uri(), request.headers()).is_ok()
        };
        assert!(check("/", &[]));
        assert!(check("http://localhost:1/", &["localhost:1"]));
        assert!(!check("http://evil.example/", &["localhost"]));
        assert!(!check("/", &["localhost", "evil.example"]));
    }

    #[test]
    fn who_listens_to_the_network_is_reached_by_names_that_nobody_can_know() {
        assert!(hosts(&["box"], &[], "0.0.0.0:12345").is_none());
        assert!(hosts(&["box"], &[], "192.0.2.1:12345").is_none());
        assert!(hosts(&["box"], &[], "[::ffff:127.0.0.1]:1").is_some());
        assert!(hosts(&[], &["*"], "127.0.0.1:12345").is_none());
        // Whoever says which names there are means it wherever the server listens.
        let some = hosts(&["box"], &["corten.example.com"], "0.0.0.0:12345").unwrap();
        assert!(passes(&some, b"corten.example.com") && !passes(&some, b"evil.example"));
    }

    proptest! {
        #[test]
        fn no_name_is_too_strange_to_read(host in "\\PC{0,40}") {
            let _ = host_of(&host);
        }
    }
}
