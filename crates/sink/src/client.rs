//! The part of a client's options that all sinks have in common.

use std::collections::BTreeMap;
use std::sync::Arc;

use corten_component::{Component, Context, Error};
use corten_net::ClientOptions;
use http::header::{HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue};

/// The options of the client of an endpoint whose requests have these headers. They win over headers of the same name, the
/// program's own name included.
///
/// # Errors
///
/// What is no header.
pub fn client_options<C: Component>(
    headers: &BTreeMap<String, String>,
    cx: &Context<C>,
) -> Result<ClientOptions, Error> {
    let services = cx.services();
    let invalid = |error: &dyn std::fmt::Display| Error::new(error.to_string());
    let mut map = HeaderMap::new();
    for (name, value) in headers {
        let name = HeaderName::try_from(name.as_str()).map_err(|e| invalid(&e))?;
        map.insert(name, HeaderValue::try_from(value.as_str()).map_err(|e| invalid(&e))?);
    }
    let user_agent = HeaderValue::from_str(&services.user_agent).map_err(|e| invalid(&e))?;
    let user_agent = map.remove(USER_AGENT).unwrap_or(user_agent);
    Ok(ClientOptions {
        user_agent,
        dialer: Some(Arc::clone(&services.dialer)),
        headers: map,
        observe: cx.observe_requests(),
        ..ClientOptions::default()
    })
}
