//! What receivers share that serve HTTP and gRPC: their arguments, the way of a request up to what answers it, and how
//! telemetry gets on from there.

mod arguments;
mod cors;
mod deliver;
mod grpc;
mod http;
mod leaving;
mod readers;
mod shown;
mod telemetry;
mod tls;

pub(crate) use self::arguments::{GrpcServerArguments, HttpServerArguments};
pub(crate) use self::deliver::{Entrance, Onward, ReceiverMetrics, unavailable};
pub(crate) use self::grpc::{GrpcCall, GrpcServer, GrpcService, PreparedGrpc};
pub(crate) use self::http::{
    CROWDED, CROWDED_AFTER, HttpRequest, HttpServer, HttpService, PreparedHttp, Unread, bare, crowded,
};
pub(crate) use self::leaving::Leaving;
pub(crate) use self::shown::Shown;
