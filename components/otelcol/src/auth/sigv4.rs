//! `otelcol.auth.sigv4`.

use std::fmt;
use std::sync::Arc;

use corten_component::{Context, Error};
use corten_config::Arguments;
use corten_net::{ClientOptions, SigV4Config, SigV4Inference, Sign};
use corten_otlp::RequestContext;
use corten_signal::flow::BoxFuture;
use http::{HeaderMap, HeaderValue};

use super::{AuthError, Authenticator, ClientAuth, Kind, Made};
use crate::flow::DebugMetrics;

/// Signs the requests of exporters with version 4 of the signatures of AWS. It is for HTTP, not for gRPC.
///
/// Credentials come from the environment, the shared files, the container or the machine, as AWS's own programs find them.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct SigV4Arguments {
    /// The region to sign for. Empty means the one that the host of the URL names.
    #[arg(optional)]
    region: String,
    /// The service to sign for. Empty means the one that the host of the URL names: Prometheus (`aps-workspaces…`),
    /// OpenSearch (`search-…`), CloudWatch logs (`logs…`) or X-Ray (`xray…`).
    #[arg(optional)]
    service: String,
    /// A role to take on.
    #[block(optional)]
    assume_role: AssumeRole,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// A role to take on.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub struct AssumeRole {
    /// Its name. Empty means none.
    #[arg(optional)]
    arn: String,
    /// The name of the session. Empty means one made up.
    #[arg(optional)]
    session_name: String,
    /// The region of the service that grants roles. Empty means `region`.
    #[arg(optional)]
    sts_region: String,
}

/// The component.
pub(crate) type SigV4Auth = Authenticator<SigV4>;

pub(crate) enum SigV4 {}

impl Kind for SigV4 {
    const NAME: &'static str = "otelcol.auth.sigv4";
    type Arguments = SigV4Arguments;

    async fn sides(arguments: SigV4Arguments, cx: &Context<SigV4Auth>) -> Result<Made, Error> {
        let config = SigV4Config {
            region: arguments.region,
            service_name: arguments.service,
            role_arn: arguments.assume_role.arn,
            ..SigV4Config::default()
        };
        let inference = SigV4Inference {
            session_name: arguments.assume_role.session_name,
            sts_region: arguments.assume_role.sts_region,
        };
        let user_agent = HeaderValue::try_from(&cx.services().user_agent).map_err(|error| error.to_string())?;
        let options = ClientOptions { user_agent, ..ClientOptions::default() };
        let signer = config.inferring_signer(inference, &options).await;
        let signer = signer.map_err(|error| format!("could not retrieve credential provider: {error}"))?;
        Ok(Made::client(Signer(signer)))
    }
}

struct Signer(Arc<dyn Sign>);

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer")
    }
}

impl ClientAuth for Signer {
    fn authorize<'a>(&'a self, _: &'a mut HeaderMap, _: &'a RequestContext) -> BoxFuture<'a, Result<(), AuthError>> {
        Box::pin(async { Ok(()) })
    }

    fn signer(&self) -> Option<Arc<dyn Sign>> {
        Some(Arc::clone(&self.0))
    }

    fn is_for_grpc(&self) -> bool {
        false
    }

    fn reads_context(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use corten_testkit::host;

    use super::*;
    use crate::auth::testing::{handler, start};

    #[tokio::test]
    async fn it_signs_requests_of_http_and_is_no_server() {
        let body = "region = \"us-east-1\"\nservice = \"aps\"\nassume_role {\nsession_name = \"s\"\n}";
        let unit = start::<SigV4>(host("otelcol.auth.sigv4.a"), body).await.unwrap();
        let handler = handler(&unit);
        let client = handler.client().unwrap();
        assert!(client.signer().is_some() && !client.is_for_grpc());
        let error = handler.server().unwrap_err();
        assert_eq!(error, "otelcol.auth.sigv4.a does not support server authentication");
    }
}
