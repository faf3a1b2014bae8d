//! `prometheus.receive_http`.

mod requests;

use std::sync::Arc;
use std::time::Duration;

use corten_component::listen::{self, ListenSettings};
use corten_component::{Component, Context, Error, Forward, Task};
use corten_config::schema::Stability;
use corten_config::{Arguments, CheckErrors};
use corten_net::ReceiverHttp;
use corten_signal::{Metrics, Receiver};

use self::requests::{Message, Settings, Shared};

/// Receives metrics by Prometheus remote write, and sends them on.
///
/// Requests are sent to `/api/v1/metrics/write`. They are answered when all receivers have taken what they brought, so
/// that a sender that keeps what was not answered loses nothing. Labels and times stay as they are.
///
/// When the address cannot be listened on, the component is unhealthy and tries again. Changed arguments do not close
/// the port unless the address changes; then the new one is opened first where the system allows both at a time.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct Config {
    /// Where to send the metrics.
    forward_to: Vec<Receiver<Metrics>>,
    /// Which messages are accepted: `prometheus.WriteRequest` for version 1 of the protocol,
    /// `io.prometheus.write.v2.Request` for version 2, which is experimental.
    #[arg(default = ["prometheus.WriteRequest"])]
    accepted_remote_write_protobuf_messages: Vec<String>,
    /// Whether metadata is sent on. It comes with version 2 of the protocol only. Experimental.
    #[arg(default = false)]
    append_metadata: bool,
    /// Whether type and unit of the metadata become the labels `__type__` and `__unit__`. Experimental.
    #[arg(default = false)]
    enable_type_and_unit_labels: bool,
    /// How long requests that are under way may go on when the server stops.
    #[arg(default = "30s")]
    graceful_shutdown_timeout: Duration,
    /// Where and how to listen.
    #[block]
    http: Option<ReceiverHttp>,
}

impl Config {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let argument = "accepted_remote_write_protobuf_messages";
        if self.accepted_remote_write_protobuf_messages.is_empty() {
            errors.push(&[argument], format!("{argument} must not be empty"));
        }
        for name in &self.accepted_remote_write_protobuf_messages {
            if Message::named(name).is_none() {
                let (v1, v2) = (Message::V1.name(), Message::V2.name());
                let text = format!("unsupported protocol version {name:?}: valid values are {v1:?} and {v2:?}");
                errors.push(&[argument], text);
            }
        }
        errors.into_result()
    }

    fn check_build(&self, minimum: Stability) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        let versions = format!("using {:?} in supported_protocol_versions", Message::V2.name());
        for (wanted, argument, what) in [
            (self.append_metadata, "append_metadata", "append_metadata"),
            (self.enable_type_and_unit_labels, "enable_type_and_unit_labels", "enable_type_and_unit_labels"),
            (self.accepted().contains(&Message::V2), "accepted_remote_write_protobuf_messages", &versions),
        ] {
            let text = format!(
                "{what} is an experimental feature, and must be enabled by setting the stability.level flag to \
                 experimental"
            );
            errors.require(!wanted || minimum == Stability::Experimental, &[argument], &text);
        }
        errors.into_result()
    }

    fn accepted(&self) -> Vec<Message> {
        self.accepted_remote_write_protobuf_messages.iter().filter_map(|name| Message::named(name)).collect()
    }
}

/// The component.
pub struct ReceiveHttp {
    shared: Arc<Shared>,
    server: Task,
}

/// What is to be put in place.
pub struct Prepared {
    config: Config,
    listen: ListenSettings,
}

impl Component for ReceiveHttp {
    const NAME: &'static str = "prometheus.receive_http";
    type Arguments = Config;
    type Exports = ();
    type Prepared = Prepared;

    async fn prepare(config: Config, _: &Context<Self>, current: Option<&Self>) -> Result<(Prepared, ()), Error> {
        let http = config.http.clone().unwrap_or_default();
        let before = current.map(|current| current.shared.listening.settings());
        let listen = ListenSettings::prepare(&http, config.graceful_shutdown_timeout, before.as_deref()).await?;
        Ok((Prepared { config, listen }, ()))
    }

    fn commit(current: Option<Self>, Prepared { config, listen }: Prepared, cx: &Context<Self>) -> Self {
        let settings = Settings {
            accepted: config.accepted(),
            append_metadata: config.append_metadata,
            type_and_unit_labels: config.enable_type_and_unit_labels,
            forward: Forward::new(cx.metrics(), cx.ledger(), config.forward_to),
            listen,
        };
        if let Some(current) = current {
            current.shared.set(settings);
            return current;
        }
        let shared = Arc::new(Shared::new(settings, cx.metrics(), cx.ledger(), cx.logger().clone()));
        let (serving, report) = (Arc::clone(&shared), listen::report(cx));
        let server = cx.spawn("server", move |stop| {
            let requests = Arc::clone(&serving);
            let handler = move |request| {
                let requests = Arc::clone(&requests);
                async move { requests.handle(request).await }
            };
            Arc::clone(&serving.listening).run(Arc::new(handler), Arc::clone(&report), stop)
        });
        ReceiveHttp { shared, server }
    }

    async fn drain(self, _: &Context<Self>) {
        // Requests under way are answered, within a limit; whoever connects is refused.
        self.server.stop().await;
    }
}

#[cfg(test)]
mod tests;
