//! The client and the server against each other and against peers that misbehave, over loopback and in memory.

mod auth;
mod client;
mod grpc;
mod kubernetes;
mod proxy;
mod redirect;
mod server;
mod support;
mod tls;
