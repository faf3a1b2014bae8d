//! Kubernetes and what is made of it.

use corten_net::kubernetes::{Api, ApiConfig, parse_yaml};
use corten_net::{ClientConfig, ClientOptions, FurtherTls, ProxyConfig, TlsConfig};
use serde_json::Value;

use super::arguments::{Kubeadm, KubernetesApi, KubernetesNode, OpenShift};
use super::outside::{Attributes, Miss, Outside, field, in_time, text};

/// The API of a cluster.
pub(super) struct Cluster(Api);

impl Cluster {
    async fn new(outside: &Outside, config: ApiConfig, tls: FurtherTls) -> Result<Self, String> {
        // Tests speak without TLS.
        let is_plain = outside.origin("").starts_with("http://");
        let url = if is_plain { config.url.replacen("https://", "http://", 1) } else { config.url };
        // The API is near, whatever the environment and the configuration of kubectl say of proxies.
        let client = ClientConfig { proxy: ProxyConfig::default(), enable_http2: false, ..config.client };
        let options = ClientOptions { tls, ..outside.options() };
        let api = Api::new(ApiConfig { url, client }, options).await;
        api.map(Cluster).map_err(|error| error.to_string())
    }

    /// That of the cluster in which this is a pod, with the pod's service account.
    pub(super) async fn of_pod(outside: &Outside) -> Result<Self, String> {
        url_of_pod(outside)?;
        let config = ApiConfig::of_pod(&outside.surroundings()).await.map_err(|error| error.to_string())?;
        Self::new(outside, config, FurtherTls::default()).await
    }

    async fn of(api: &KubernetesApi, outside: &Outside) -> Result<Self, String> {
        match &*api.auth_type {
            "serviceAccount" => Self::of_pod(outside).await,
            "kubeConfig" => {
                let failed = |why| format!("error connecting to k8s with auth_type=kubeConfig: {why}");
                let config = ApiConfig::of_kubectl(&outside.surroundings(), &api.context).await;
                let config = config.map_err(|error| failed(error.to_string()))?;
                Self::new(outside, config, FurtherTls::default()).await.map_err(failed)
            }
            "none" => {
                let tls_config = TlsConfig { insecure_skip_verify: true, ..TlsConfig::default() };
                let client = ClientConfig { tls_config, ..ClientConfig::default() };
                Self::new(outside, ApiConfig { url: url_of_pod(outside)?, client }, FurtherTls::default()).await
            }
            other => Err(format!("auth_type {other:?} says nothing of certificates and cannot be used")),
        }
    }

    /// What the API says at a path.
    pub(super) async fn get(&self, path: &str) -> Result<Value, String> {
        let answer = async { self.0.get(path).await.map_err(|error| error.to_string()) };
        in_time(&format!("the API at {path}"), answer).await
    }
}

fn url_of_pod(outside: &Outside) -> Result<String, String> {
    ApiConfig::url_of_pod(&outside.surroundings()).map_err(|_| {
        "unable to load k8s config, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined".to_owned()
    })
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
        let configuration = parse_yaml(&configuration).map_err(missing)?;
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
    let surroundings = outside.surroundings();
    let url = match settings.address.trim_end_matches('/') {
        "" => url_of_pod(outside)?,
        address => address.to_owned(),
    };
    let (mut tls_config, further) = settings.tls.of_net()?;
    if tls_config.ca_pem.is_empty() && tls_config.ca_file.is_empty() {
        let of_pod = ApiConfig::tls_of_pod(&surroundings).await.map_err(|error| error.to_string())?;
        tls_config.ca_file = of_pod.ca_file;
    }
    let mut client = ClientConfig { tls_config, ..ClientConfig::default() };
    if settings.token.is_empty() {
        let file = ApiConfig::token_file_of_pod(&surroundings).await;
        client.bearer_token_file = file.map_err(|error| error.to_string())?;
    } else {
        client.bearer_token = settings.token.clone();
    }
    let cluster = Cluster::new(outside, ApiConfig { url, client }, further).await?;
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
