//! Where request signing plugs in.

use std::future::Future;
use std::pin::Pin;

use http::HeaderMap;
use http::request::Parts;

use crate::{Body, Error};

/// Computes headers from a whole request: AWS signature version 4, or a vendor's token.
///
/// It runs for every hop on the caller's request, after its URL is final and before the configured headers, the user
/// agent and the credentials are added, which therefore are sent but not signed. It does not run for a hop of a
/// redirect that has left the first host.
pub trait Sign: Send + Sync + 'static {
    /// The headers to add, replacing those of the same name. Errors are best of kind [`crate::ErrorKind::Auth`].
    fn sign<'a>(
        &'a self,
        parts: &'a Parts,
        body: &'a Body,
    ) -> Pin<Box<dyn Future<Output = Result<HeaderMap, Error>> + Send + 'a>>;
}
