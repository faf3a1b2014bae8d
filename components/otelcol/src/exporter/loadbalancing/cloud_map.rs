//! Endpoints that are registered in Cloud Map of AWS.

use std::sync::Arc;
use std::time::Duration;

use corten_config::{Arguments, CheckErrors};
use corten_net::{AwsService, ClientOptions};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::resolver::{Polled, or};

/// What the metrics call them.
const NAME: &str = "aws";
/// What can be asked for.
const HEALTH: [&str; 4] = ["HEALTHY", "UNHEALTHY", "ALL", "HEALTHY_OR_ELSE_ALL"];
const OPERATION: &str = "Route53AutoNaming_v20170314.DiscoverInstances";

/// Servers that are registered with a service in Cloud Map of AWS. Region, credentials and endpoint are those of the
/// environment and the shared configuration files, as for the tools of AWS; without a region it is `us-east-1`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct CloudMapResolver {
    /// The namespace.
    namespace: String,
    /// The service.
    service_name: String,
    /// Which of its instances: `HEALTHY`, `UNHEALTHY`, `ALL`, or `HEALTHY_OR_ELSE_ALL`, which is all if none is healthy.
    #[arg(default = "HEALTHY")]
    health_status: String,
    /// How often the instances are looked up; 0 means thirty seconds.
    #[arg(default = "30s")]
    interval: Duration,
    /// How long that may take; 0 means five seconds. The first time it may take longer.
    #[arg(default = "5s")]
    timeout: Duration,
    /// The port of the servers. Without it, it is the one that each instance is registered with.
    port: Option<u16>,
    /// The account that the namespace belongs to, if it is another one.
    #[arg(optional)]
    owner_account: String,
}

impl CloudMapResolver {
    fn check(&self) -> Result<(), CheckErrors> {
        if HEALTH.contains(&&*self.health_status) {
            return Ok(());
        }
        Err(CheckErrors::of(&["health_status"], format!("invalid health status {:?}", self.health_status)))
    }

    /// What is missing.
    pub(super) fn missing(&self) -> Option<&'static str> {
        match (&*self.namespace, &*self.service_name) {
            ("", _) => Some("no Cloud Map namespace specified to resolve the backends"),
            (_, "") => Some("no Cloud Map service_name specified to resolve the backends"),
            _ => None,
        }
    }

    fn request(&self) -> Value {
        let mut request = json!({
            "HealthStatus": self.health_status,
            "NamespaceName": self.namespace,
            "ServiceName": self.service_name,
        });
        if !self.owner_account.is_empty() {
            request["OwnerAccount"] = json!(self.owner_account);
        }
        request
    }

    /// The place to look for the instances.
    pub(super) fn polled(self, options: ClientOptions) -> Polled {
        // What is wrong with the configuration of AWS may be put right.
        let service = Arc::new(OnceCell::<AwsService>::new());
        let (interval, timeout) =
            (or(self.interval, Duration::from_secs(30)), or(self.timeout, Duration::from_secs(5)));
        let (request, port) = (Arc::new(self.request()), self.port);
        Polled {
            name: NAME,
            what: format!("lookup {} in {}", self.service_name, self.namespace),
            interval,
            timeout,
            look: Arc::new(move || {
                let (service, request, options) = (Arc::clone(&service), Arc::clone(&request), options.clone());
                Box::pin(async move {
                    let made = || AwsService::new("servicediscovery", "data-", options);
                    let service = service.get_or_try_init(made).await.map_err(|error| error.to_string())?;
                    let answer = service.call(OPERATION, &request).await.map_err(|error| error.to_string())?;
                    Ok(endpoints(&answer, port))
                })
            }),
        }
    }
}

/// The endpoints of an answer. One whose address is not known is there all the same: others have it, too.
fn endpoints(answer: &Value, port: Option<u16>) -> Vec<String> {
    let instances = answer.get("Instances").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let endpoint = |instance: &Value| {
        let attribute = |name: &str| instance.get("Attributes")?.get(name)?.as_str();
        let address = attribute("AWS_INSTANCE_IPV4").unwrap_or_default();
        match port {
            Some(port) => format!("{address}:{port}"),
            None => format!("{address}:{}", attribute("AWS_INSTANCE_PORT").unwrap_or_default()),
        }
    };
    instances.iter().map(endpoint).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instances_are_named_by_their_addresses_and_ports() {
        let instance = |address: &str, port: &str| json!({"Attributes": {"AWS_INSTANCE_IPV4": address, "AWS_INSTANCE_PORT": port}});
        let answer =
            json!({"Instances": [instance("10.0.0.2", "1"), instance("10.0.0.1", "2"), {"Attributes": {}}, 7]});
        assert_eq!(endpoints(&answer, None), ["10.0.0.2:1", "10.0.0.1:2", ":", ":"]);
        assert_eq!(endpoints(&answer, Some(4317)), ["10.0.0.2:4317", "10.0.0.1:4317", ":4317", ":4317"]);
        for none in [json!({}), json!([]), json!({"Instances": {}}), Value::Null] {
            assert!(endpoints(&none, None).is_empty());
        }
    }

    #[test]
    fn a_request_says_what_is_configured() {
        let mut settings = CloudMapResolver {
            namespace: "n".to_owned(),
            service_name: "s".to_owned(),
            health_status: "ALL".to_owned(),
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            port: None,
            owner_account: String::new(),
        };
        let request = json!({"HealthStatus": "ALL", "NamespaceName": "n", "ServiceName": "s"});
        assert_eq!(settings.request(), request);
        settings.owner_account = "123".to_owned();
        assert_eq!(settings.request()["OwnerAccount"], "123");
        let polled = settings.polled(ClientOptions::default());
        assert_eq!((polled.interval, polled.timeout), (Duration::from_secs(30), Duration::from_secs(5)));
    }
}
