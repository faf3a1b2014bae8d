//! What commands ask of a program that runs.

use std::path::Path;
use std::time::Duration;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches};
use corten_config::decode::Secret;
use corten_net::{BasicAuth, Body, Client, ClientConfig, ClientOptions, ResponseBody, TlsConfig};
use corten_runtime::source::io_error_text;
use corten_syntax::quote;
use http::{HeaderValue, Request, Response, StatusCode, header};

use crate::cli::{switch, truth};
use crate::version::VERSION;

/// How long the program may take to answer.
pub(crate) const ANSWER_WAIT: Duration = Duration::from_secs(30);
/// The longest answer that is read whole.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// What stands for the status of a program that does not know who asks.
pub(crate) const ASKS_FOR_USER: &str = "the program that runs asks for a user: --user and --password-file";

/// Where the program listens unless it is told otherwise.
const LOCAL: &str = "http://localhost:12345";

/// The flags by which a command finds the program and is let in.
pub(crate) fn flags() -> Vec<Arg> {
    let mut flags = vec![
        text_flag("address", LOCAL, "Where the program that runs is reached"),
        text_flag("path-prefix", "/", "What it was given as --server.http.ui-path-prefix"),
    ];
    flags.extend(access_flags());
    flags
}

/// The flags by which a command is let in.
pub(crate) fn access_flags() -> Vec<Arg> {
    vec![
        text_flag("user", "", "The user's name, where it asks for one"),
        text_flag("password-file", "", "A file with the user's password"),
        text_flag("ca-file", "", "A file with the certificate authorities that are trusted in place of the system's"),
        text_flag("cert-file", "", "A file with the certificate to show to the program that runs"),
        text_flag("key-file", "", "A file with the key of that certificate"),
        switch("insecure-skip-verify", "false", "Take any certificate for that of the program that runs"),
    ]
}

fn text_flag(name: &'static str, default: &'static str, help: &'static str) -> Arg {
    Arg::new(name)
        .long(name)
        .help(help)
        .default_values((!default.is_empty()).then_some(default))
        .allow_hyphen_values(true)
        .value_name("string")
}

/// A client as the flags of a command say, and where the one of this name says that the program is, with its scheme.
pub(crate) async fn client(matches: &ArgMatches, place: &str) -> Result<(Client, String), String> {
    let text = |name: &str| matches.get_one::<String>(name).cloned().unwrap_or_default();
    let (address, user, file) = (text(place), text("user"), text("password-file"));
    let tls_config = TlsConfig {
        ca_file: text("ca-file"),
        cert_file: text("cert-file"),
        key_file: text("key-file"),
        insecure_skip_verify: truth(matches, "insecure-skip-verify"),
        ..TlsConfig::default()
    };
    let with_tls = tls_config != TlsConfig::default();
    let is_default = matches.value_source(place) == Some(ValueSource::DefaultValue);
    let address = match address.split_once("://") {
        Some((_, rest)) if with_tls && is_default => format!("https://{rest}"),
        Some(_) => address,
        None => format!("{}://{address}", if with_tls { "https" } else { "http" }),
    };
    if with_tls && !address.starts_with("https://") {
        return Err(format!(
            "certificates are only looked at where --{place} begins with https://, and it is {address}"
        ));
    }
    if tls_config.cert_file.is_empty() != tls_config.key_file.is_empty() {
        return Err("--cert-file and --key-file need each other".to_owned());
    }
    let mut config = ClientConfig { follow_redirects: false, tls_config, ..ClientConfig::default() };
    if !user.is_empty() {
        let password = match file.as_str() {
            "" => String::new(),
            file => std::fs::read_to_string(Path::new(file))
                .map_err(|error| format!("reading {}: {}", quote(file), io_error_text(&error)))?,
        };
        let password = Secret::new(password.trim_end_matches(['\r', '\n']));
        config.basic_auth = Some(BasicAuth { username: user, password, ..BasicAuth::default() });
    } else if !file.is_empty() {
        return Err("--password-file needs --user".to_owned());
    }
    let agent = HeaderValue::from_str(&format!("Corten/{VERSION}")).map_err(|error| error.to_string())?;
    let options = ClientOptions { user_agent: agent, connect_timeout: ANSWER_WAIT, ..ClientOptions::default() };
    let client = Client::new(config, options).await.map_err(|error| error.to_string())?;
    Ok((client, address))
}

/// The program that runs.
pub(crate) struct Remote {
    client: Client,
    base: String,
}

impl Remote {
    /// The program that the flags of a command name.
    pub(crate) async fn of(matches: &ArgMatches) -> Result<Self, String> {
        let (client, address) = client(matches, "address").await?;
        let prefix = matches.get_one::<String>("path-prefix").map_or("", String::as_str);
        let prefix: String = prefix.split('/').filter(|part| !part.is_empty()).flat_map(|part| ["/", part]).collect();
        Ok(Remote { client, base: format!("{}{prefix}/api/v0/corten/", address.trim_end_matches('/')) })
    }

    /// Asks for what is below the API's place.
    pub(crate) async fn get(&self, path: &str, accept: &'static str) -> Result<Response<ResponseBody>, String> {
        let url = format!("{}{path}", self.base);
        let request = Request::get(&url).header(header::ACCEPT, accept).body(Body::empty());
        let request = request.map_err(|_| format!("{} is no URL", quote(&url)))?;
        let asked = tokio::time::timeout(ANSWER_WAIT, self.client.request(request)).await;
        let answer = asked
            .map_err(|_| format!("no answer from {} within {} s", self.base, ANSWER_WAIT.as_secs()))?
            .map_err(|error| format!("asking the program that runs: {error}"))?;
        if answer.status() == StatusCode::OK {
            return Ok(answer);
        }
        let status = answer.status();
        // What comes late does not keep the status from being told.
        let body = tokio::time::timeout(ANSWER_WAIT, answer.into_body().read_start(ANSWER_BYTES_MAX)).await;
        let body = body.unwrap_or_default();
        let told = serde_json::from_str::<serde_json::Value>(&body).ok();
        let told = told.and_then(|told| told["error"].as_str().map(str::to_owned));
        Err(told.unwrap_or_else(|| match status {
            StatusCode::UNAUTHORIZED => ASKS_FOR_USER.to_owned(),
            _ => format!("the answer has status {status}"),
        }))
    }

    /// Asks for JSON.
    pub(crate) async fn json(&self, path: &str) -> Result<serde_json::Value, String> {
        let answer = self.get(path, "application/json").await?;
        let body = tokio::time::timeout(ANSWER_WAIT, answer.into_body().read(ANSWER_BYTES_MAX)).await;
        let body = body.map_err(|_| "the answer does not end".to_owned())?.map_err(|error| error.to_string())?;
        serde_json::from_slice(&body).map_err(|_| format!("what answers at {} is another program", self.base))
    }
}

/// Runs what waits for answers.
pub(crate) fn block_on<T>(work: impl Future<Output = Result<T, String>>) -> Result<T, String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| format!("failed to start: {}", io_error_text(&error)))?;
    let outcome = runtime.block_on(work);
    runtime.shutdown_background();
    outcome
}

/// Text from outside for a terminal, without what would move its cursor or change its colours.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\t' => out.push(c),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_from_outside_moves_the_cursor() {
        assert_eq!(printable("a\tb\u{1b}[31m\r\nc\u{9b}é"), "a\tb\\u{1b}[31m\\r\\nc\\u{9b}é");
    }
}
