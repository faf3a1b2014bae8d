//! Where somebody looks at the requests of a client.

use http::{HeaderMap, Method, StatusCode, Uri};

use crate::Error;

/// Is told of each request of a client, redirects included as a part of it.
pub trait ObserveRequests: Send + Sync + 'static {
    /// A request begins. Headers may be added to it.
    fn begin(&self, method: &Method, uri: &Uri, headers: &mut HeaderMap) -> Option<Box<dyn RequestSpan>>;
}

/// A request that is under way. It is dropped where nobody waits for its answer any more.
pub trait RequestSpan: Send {
    /// The head of the answer has come.
    fn answered(self: Box<Self>, status: StatusCode);
    /// There is no answer.
    fn failed(self: Box<Self>, error: &Error);
}
