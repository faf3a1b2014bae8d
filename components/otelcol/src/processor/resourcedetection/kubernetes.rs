//! Kubernetes and what is made of it.

use corten_net::{Client, ClientConfig, Secret, TlsConfig};
use http::Method;
use serde_json::Value;

use super::arguments::{Kubeadm, KubernetesApi, KubernetesNode, OpenShift};
use super::outside::{Attributes, Miss, Outside, ask, field, json, text};

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The API of a cluster.
pub(super) struct Cluster {
    client: Client,
    address: String,
    token: Secret,
}

impl Cluster {
    async fn new(
        outside: &Outside,
        address: &str,
        token: Secret,
        tls: (TlsConfig, corten_net::FurtherTls),
    ) -> Result<Self, String> {
        let (tls_config, further) = tls;
        let config = ClientConfig { tls_config, enable_http2: false, ..ClientConfig::default() };
        let mut options = outside.options();
        options.tls = further;
        let client = Client::new(config, options).await.map_err(|error| error.to_string())?;
        Ok(Cluster { client, address: address.trim_end_matches('/').to_owned(), token })
    }

    /// That of the cluster in which this is a pod, with the pod's service account.
    pub(super) async fn of_pod(outside: &Outside) -> Result<Self, String> {
        let address = address_of_pod(outside)?;
        let token = outside.file(&format!("{ACCOUNT}/token")).await?;
        Self::new(outside, &address, Secret::new(token.trim()), (ca_of_pod(outside).await, Default::default())).await
    }

    async fn of(api: &KubernetesApi, outside: &Outside) -> Result<Self, String> {
        match &*api.auth_type {
            "serviceAccount" => Self::of_pod(outside).await,
            "kubeConfig" => kubeconfig(api, outside)
                .await
                .map_err(|why| format!("error connecting to k8s with auth_type=kubeConfig: {why}")),
            "none" => {
                let tls = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
                Self::new(outside, &address_of_pod(outside)?, Secret::default(), (tls, Default::default())).await
            }
            other => Err(format!("auth_type {other:?} says nothing of certificates and cannot be used")),
        }
    }

    /// What the API says at a path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        let url = format!("{}{path}", self.address);
        let bearer = format!("Bearer {}", self.token.expose());
        let header = (!self.token.is_empty()).then_some(("Authorization", &*bearer));
        json(&url, &ask(&self.client, Method::GET, &url, header.as_slice()).await?)
    }
}

fn address_of_pod(outside: &Outside) -> Result<String, String> {
    let (host, port) = (outside.env("KUBERNETES_SERVICE_HOST"), outside.env("KUBERNETES_SERVICE_PORT"));
    let (Some(host), Some(port)) = (host, port) else {
        return Err(
            "unable to load k8s config, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined".to_owned()
        );
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    // Tests speak without TLS.
    let scheme = if outside.origin("").starts_with("http://") { "http" } else { "https" };
    Ok(format!("{scheme}://{host}:{port}"))
}

async fn ca_of_pod(outside: &Outside) -> TlsConfig {
    let ca_pem = outside.file(&format!("{ACCOUNT}/ca.crt")).await.unwrap_or_default();
    TlsConfig { ca_pem, ..TlsConfig::default() }
}

/// The cluster of a configuration of `kubectl`.
async fn kubeconfig(api: &KubernetesApi, outside: &Outside) -> Result<Cluster, String> {
    let named = outside.env("KUBECONFIG").and_then(|paths| Some(paths.split(':').next()?.to_owned()));
    let path = match (named, outside.env("HOME")) {
        (Some(path), _) => path,
        (None, Some(home)) => format!("{home}/.kube/config"),
        (None, None) => return Err("neither KUBECONFIG nor HOME is set".to_owned()),
    };
    let config = super::yaml::parse(&outside.file(&path).await?)?;
    let context = if api.context.is_empty() { text(&config, "current-context") } else { api.context.clone() };
    let entry = |list: &str, name: &str, what: &str| {
        let entries = config.get(list).and_then(Value::as_array).into_iter().flatten();
        let found = entries.filter(|entry| text(entry, "name") == name).find_map(|entry| entry.get(what)).cloned();
        found.ok_or_else(|| format!("{what} {name:?} does not exist"))
    };
    let context = entry("contexts", &context, "context")?;
    let cluster = entry("clusters", &text(&context, "cluster"), "cluster")?;
    let user = entry("users", &text(&context, "user"), "user").unwrap_or_default();
    let decoded = |json: &Value, name: &str| -> Result<String, String> {
        use base64::Engine as _;
        let Some(encoded) = field(json, name) else { return Ok(String::new()) };
        let bytes = base64::engine::general_purpose::STANDARD.decode(encoded.trim());
        let text = bytes.ok().and_then(|bytes| String::from_utf8(bytes).ok());
        text.ok_or_else(|| format!("{name} is not valid"))
    };
    let tls = TlsConfig {
        ca_pem: decoded(&cluster, "certificate-authority-data")?,
        ca_file: text(&cluster, "certificate-authority"),
        cert_pem: decoded(&user, "client-certificate-data")?,
        cert_file: text(&user, "client-certificate"),
        key_pem: Secret::new(decoded(&user, "client-key-data")?),
        key_file: text(&user, "client-key"),
        server_name: text(&cluster, "tls-server-name"),
        insecure_skip_verify: cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)),
        ..TlsConfig::default()
    };
    let token = match field(&user, "tokenFile") {
        Some(file) => outside.file(&file).await?.trim().to_owned(),
        None => text(&user, "token"),
    };
    Cluster::new(outside, &text(&cluster, "server"), Secret::new(token), (tls, Default::default())).await
}

pub(super) async fn kubernetes_node(settings: &KubernetesNode, outside: &Outside) -> Result<Attributes, Miss> {
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let variable = &*settings.node_from_env_var;
    let name = outside.env(if variable.is_empty() { "K8S_NODE_NAME" } else { variable });
    let nameless = "node name can't be found. Check the readme on how to set the required env variable";
    let name = name.ok_or_else(|| nameless.to_owned())?;
    let failed = |why| format!("failed creating k8snode detector: failed to create K8s API client: {why}");
    let cluster = Cluster::of(&settings.api, outside).await.map_err(failed)?;
    if ["k8s.node.uid", "k8s.node.name"].iter().any(|name| found.wants(name)) {
        let missing = |why| Miss::elsewhere(format!("failed to fetch node with name {name} from K8s API: {why}"));
        let node = cluster.get(&format!("/api/v1/nodes/{name}")).await.map_err(missing)?;
        found.fields(&node, [("k8s.node.uid", "metadata.uid"), ("k8s.node.name", "metadata.name")]);
    }
    Ok(found)
}

pub(super) async fn kubeadm(settings: &Kubeadm, outside: &Outside) -> Result<Attributes, Miss> {
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let failed = |why| format!("failed creating kubeadm provider: failed to create K8s API client: {why}");
    let cluster = Cluster::of(&settings.api, outside).await.map_err(failed)?;
    if found.wants("k8s.cluster.name") {
        let missing = |why| Miss::elsewhere(format!("failed getting k8s cluster name: {why}"));
        let map = cluster.get("/api/v1/namespaces/kube-system/configmaps/kubeadm-config").await.map_err(missing)?;
        let nameless = || "ClusterConfiguration key not found in ConfigMap kubeadm-config".to_owned();
        let configuration = field(&map, "data.ClusterConfiguration").ok_or_else(nameless).map_err(missing)?;
        let configuration = super::yaml::parse(&configuration).map_err(missing)?;
        found.text("k8s.cluster.name", text(&configuration, "clusterName"));
    }
    if found.wants("k8s.cluster.uid") {
        let missing = |why| Miss::elsewhere(format!("failed getting k8s cluster uid: {why}"));
        let namespace = cluster.get("/api/v1/namespaces/kube-system").await.map_err(missing)?;
        found.text("k8s.cluster.uid", text(&namespace, "metadata.uid"));
    }
    Ok(found)
}

pub(super) async fn openshift(settings: &OpenShift, outside: &Outside) -> Result<Attributes, Miss> {
    let address = if settings.address.is_empty() { address_of_pod(outside)? } else { settings.address.clone() };
    let token = if settings.token.is_empty() {
        Secret::new(outside.file(&format!("{ACCOUNT}/token")).await?.trim())
    } else {
        settings.token.clone()
    };
    let (mut tls, further) = settings.tls.of_net()?;
    if tls.ca_pem.is_empty() && tls.ca_file.is_empty() {
        tls.ca_pem = ca_of_pod(outside).await.ca_pem;
    }
    let cluster = Cluster::new(outside, &address, token, (tls, further)).await?;
    let missing = |why| Miss::elsewhere(format!("openshift metadata unavailable: {why}"));
    let path = "/apis/config.openshift.io/v1/infrastructures/cluster/status";
    let infrastructure = cluster.get(path).await.map_err(missing)?;
    let status = |path: &str| text(&infrastructure, &format!("status.platformStatus.{path}"));
    let (provider, platform, region) = match &*status("type").to_lowercase() {
        "aws" => ("aws", "aws_openshift", status("aws.region")),
        "azure" => ("azure", "azure.openshift", status("azure.cloudName")),
        "gcp" => ("gcp", "gcp_openshift", status("gcp.region")),
        "ibmcloud" => ("ibm_cloud", "ibm_cloud_openshift", status("ibmcloud.location")),
        "openstack" => ("", "", status("openstack.cloudName")),
        _ => ("", "", String::new()),
    };
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.texts([
        ("k8s.cluster.name", field(&infrastructure, "status.infrastructureName")),
        ("cloud.provider", Some(provider.to_owned())),
        ("cloud.platform", Some(platform.to_owned())),
        ("cloud.region", Some(region.to_lowercase())),
    ]);
    Ok(found)
}
