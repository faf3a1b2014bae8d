//! Amazon Web Services.

use std::time::Duration;

use corten_net::{Body, Client, ClientConfig, SigV4Config};
use http::Request;
use serde_json::Value;

use super::arguments::{Ec2, Ecs, Eks, ElasticBeanstalk, Lambda, expressions};
use super::clouds::LINK_LOCAL;
use super::kubernetes::Cluster;
use super::outside::{Attributes, Found, Miss, Outside, field, json, text};

/// The metadata service of a machine, with its token where it knows tokens.
struct Metadata<'a> {
    outside: &'a Outside,
    origin: String,
    token: Option<String>,
}

impl<'a> Metadata<'a> {
    async fn new(outside: &'a Outside) -> Result<Self, String> {
        if outside.env("AWS_EC2_METADATA_DISABLED").is_some_and(|text| text.eq_ignore_ascii_case("true")) {
            return Err("access disabled to EC2 IMDS via environment variable".to_owned());
        }
        let origin = outside.env("AWS_EC2_METADATA_SERVICE_ENDPOINT");
        let origin = origin.unwrap_or_else(|| outside.origin(LINK_LOCAL).to_owned());
        let origin = origin.trim_end_matches('/').to_owned();
        let lifetime = [("X-aws-ec2-metadata-token-ttl-seconds", "300")];
        // Old services know no tokens.
        let token = outside.put(&format!("{origin}/latest/api/token"), &lifetime).await.ok();
        Ok(Metadata { outside, origin, token })
    }

    async fn get(&self, path: &str) -> Result<String, String> {
        let token = self.token.as_deref().map(|token| ("X-aws-ec2-metadata-token", token));
        self.outside.get(&format!("{}/latest/{path}", self.origin), token.as_slice()).await
    }

    async fn identity(&self) -> Result<Value, String> {
        let path = "dynamic/instance-identity/document";
        json(path, self.get(path).await?.as_bytes())
    }
}

pub(super) async fn ec2(settings: &Ec2, outside: &Outside) -> Result<Attributes, Miss> {
    let unavailable = |why: String| Miss::elsewhere(format!("EC2 metadata unavailable: {why}"));
    let mut wait = Duration::from_secs(1);
    let mut attempt = 1;
    let metadata = loop {
        let found = async {
            let metadata = Metadata::new(outside).await?;
            metadata.get("meta-data/instance-id").await.map(|_| metadata)
        };
        match found.await {
            Ok(metadata) => break metadata,
            // None at the most are as many as there is time for.
            Err(why) if settings.max_attempts == attempt => return Err(unavailable(why)),
            Err(_) => {
                tokio::time::sleep(wait.min(settings.max_backoff)).await;
                wait = wait.saturating_mul(2);
                attempt = attempt.saturating_add(1);
            }
        }
    };
    let identity = metadata.identity().await.map_err(|why| format!("failed getting identity document: {why}"))?;
    let hostname = metadata.get("meta-data/hostname").await;
    let hostname = hostname.map_err(|why| format!("failed getting hostname: {why}"))?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_ec2");
    let of = [
        ("cloud.region", "region"),
        ("cloud.account.id", "accountId"),
        ("cloud.availability_zone", "availabilityZone"),
        ("host.id", "instanceId"),
        ("host.image.id", "imageId"),
        ("host.type", "instanceType"),
    ];
    found.fields(&identity, of);
    found.text("host.name", hostname);
    if !settings.tags.is_empty() {
        let expressions = expressions(&settings.tags)?;
        let is_wanted = |name: &str| expressions.iter().any(|expression| expression.is_match(name));
        // Without them the rest is worth as much.
        if settings.tags_from_imds {
            let names = metadata.get("meta-data/tags/instance").await;
            let names = names.unwrap_or_else(|why| {
                found.warnings.push(format!("failed to fetch tags from IMDS: {why}"));
                String::new()
            });
            for name in names.lines().map(str::trim).filter(|name| is_wanted(name)) {
                match metadata.get(&format!("meta-data/tags/instance/{name}")).await {
                    Ok(value) => found.free(format!("{TAG}{name}"), value),
                    Err(why) => found.warnings.push(format!("failed to get tag value for key {name:?}: {why}")),
                }
            }
        } else {
            match tags(outside, &text(&identity, "region"), &text(&identity, "instanceId")).await {
                Ok(tags) => {
                    for (name, value) in tags.into_iter().filter(|(name, _)| is_wanted(name)) {
                        found.free(format!("{TAG}{name}"), value);
                    }
                }
                Err(why) => found.warnings.push(format!("failed fetching ec2 instance tags: {why}")),
            }
        }
    }
    Ok(found)
}

/// What stands before the name of a tag.
const TAG: &str = "ec2.tag.";

/// The tags of a machine, by the API.
async fn tags(outside: &Outside, region: &str, instance: &str) -> Result<Vec<(String, String)>, String> {
    let filter = format!("Filter.1.Name=resource-id&Filter.1.Value.1={instance}");
    let answer = api(outside, region, &format!("Action=DescribeTags&Version=2016-11-15&{filter}")).await?;
    Ok(items(&answer))
}

/// Keys and values, each pair in an item of its own.
fn items(xml: &str) -> Vec<(String, String)> {
    let value = |item| elements(item, "value").next().map(unescaped).unwrap_or_default();
    let tag = |item| Some((elements(item, "key").next().map(unescaped)?, value(item)));
    elements(xml, "item").filter_map(tag).collect()
}

/// What the API of EC2 answers, in XML.
async fn api(outside: &Outside, region: &str, query: &str) -> Result<String, String> {
    let safe = |text: &str| text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if region.is_empty() || !safe(region) {
        return Err("the region is not known".to_owned());
    }
    let endpoint = outside.env("AWS_ENDPOINT_URL_EC2").or_else(|| outside.env("AWS_ENDPOINT_URL"));
    let endpoint = endpoint.unwrap_or_else(|| format!("https://ec2.{region}.amazonaws.com"));
    let mut config =
        SigV4Config { region: region.to_owned(), service_name: "ec2".to_owned(), ..SigV4Config::default() };
    if let (Some(access), Some(secret), None) =
        (outside.env("AWS_ACCESS_KEY_ID"), outside.env("AWS_SECRET_ACCESS_KEY"), outside.env("AWS_SESSION_TOKEN"))
    {
        config.access_key = access;
        config.secret_key = corten_net::Secret::new(secret);
    }
    let mut options = outside.options();
    options.sign = Some(config.signer(&options).await.map_err(|error| error.to_string())?);
    let client = Client::new(ClientConfig::default(), options).await.map_err(|error| error.to_string())?;
    let request = Request::post(format!("{}/", endpoint.trim_end_matches('/')))
        .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
        .body(Body::from(query.to_owned()))
        .map_err(|error| error.to_string())?;
    let response = client.request(request).await.map_err(|error| error.to_string())?;
    let status = response.status();
    let body = response.into_body().read(4 << 20).await.map_err(|error| error.to_string())?;
    if !status.is_success() {
        return Err(format!("the API of EC2 returned {status}"));
    }
    Ok(String::from_utf8_lossy(&body).into_owned())
}

/// What stands in the elements of a name, outermost first and in order.
fn elements<'a>(xml: &'a str, name: &str) -> impl Iterator<Item = &'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let mut rest = xml;
    std::iter::from_fn(move || {
        let start = rest.find(&open)? + open.len();
        let len = rest[start..].find(&close)?;
        let found = &rest[start..start + len];
        rest = &rest[start + len + close.len()..];
        Some(found)
    })
}

fn unescaped(text: &str) -> String {
    let text = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&#39;", "'");
    text.replace("&apos;", "'").replace("&amp;", "&")
}

pub(super) async fn ecs(settings: &Ecs, outside: &Outside) -> Result<Attributes, Miss> {
    let variables = ["ECS_CONTAINER_METADATA_URI_V4", "ECS_CONTAINER_METADATA_URI"];
    let endpoint = variables.iter().find_map(|name| Some(outside.env(name)?.trim().trim_end_matches('/').to_owned()));
    let missing = || Miss::elsewhere("ecs metadata unavailable: no task metadata endpoint detected");
    let endpoint = endpoint.ok_or_else(missing)?;
    let task = outside.json(&format!("{endpoint}/task"), &[]).await;
    let task = task.map_err(|why| format!("unable to fetch task metadata: {why}"))?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let arn = text(&task, "TaskARN");
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_ecs");
    found.text("aws.ecs.task.arn", &*arn);
    let (region, account, id) = match arn.split(':').collect::<Vec<_>>()[..] {
        // Old ones have no cluster before the identifier.
        [_, _, _, region, account, task, ..] => (region, account, task.rsplit('/').next().unwrap_or_default()),
        _ => Default::default(),
    };
    found.texts([("aws.ecs.task.id", Some(id.to_owned()))]);
    found.text("aws.ecs.task.family", text(&task, "Family"));
    found.text("aws.ecs.task.revision", text(&task, "Revision"));
    found.texts([("cloud.account.id", Some(account.to_owned())), ("cloud.region", Some(region.to_owned()))]);
    let cluster = text(&task, "Cluster");
    let is_arn = cluster.contains(':');
    let cluster = if is_arn { cluster } else { format!("arn:aws:ecs:{region}:{account}:cluster/{cluster}") };
    found.text("aws.ecs.cluster.arn", cluster);
    found.texts([("cloud.availability_zone", field(&task, "AvailabilityZone"))]);
    let launched = text(&task, "LaunchType").to_lowercase();
    if matches!(&*launched, "ec2" | "fargate") {
        found.text("aws.ecs.launchtype", launched);
    }
    match outside.json(&endpoint, &[]).await {
        Ok(own) => logs(&task, &own, account, &mut found),
        Err(why) => found.lacking.push(format!("ecs container metadata unavailable: {why}")),
    }
    Ok(found)
}

/// Where the logs of the other containers of a task go.
fn logs(task: &Value, own: &Value, account: &str, found: &mut Attributes) {
    let mut lists: [Vec<String>; 4] = Default::default();
    for container in task.get("Containers").and_then(Value::as_array).into_iter().flatten() {
        let [group, region, stream] =
            ["awslogs-group", "awslogs-region", "awslogs-stream"].map(|name| text(&container["LogOptions"], name));
        let is_other = text(container, "DockerId") != text(own, "DockerId");
        let is_logged = text(container, "Type") == "NORMAL"
            && text(container, "KnownStatus") == "RUNNING"
            && text(container, "LogDriver") == "awslogs"
            && !(group.is_empty() && region.is_empty() && stream.is_empty());
        if is_other && is_logged {
            let arn = format!("arn:aws:logs:{region}:{account}:log-group:{group}");
            let stream_arn = format!("{arn}:log-stream:{stream}");
            for (list, value) in lists.iter_mut().zip([group, arn, stream, stream_arn]) {
                list.push(value);
            }
        }
    }
    let names = ["aws.log.group.names", "aws.log.group.arns", "aws.log.stream.names", "aws.log.stream.arns"];
    for (name, list) in names.into_iter().zip(lists) {
        if !list.is_empty() {
            found.put(name, name, Found::List(list));
        }
    }
}

pub(super) async fn eks(settings: &Eks, outside: &Outside) -> Result<Attributes, Miss> {
    let elsewhere = |why: String| Miss::Elsewhere(format!("eks metadata unavailable: {why}"));
    if outside.env("KUBERNETES_SERVICE_HOST").is_none() {
        return Err(elsewhere("not running on EKS".to_owned()));
    }
    let cluster = Cluster::of_pod(outside).await?;
    if !is_eks(outside, &cluster).await.map_err(elsewhere)? {
        return Err(elsewhere("not running on EKS".to_owned()));
    }
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_eks");
    if (found.wants("cloud.account.id") || found.wants("k8s.cluster.name"))
        && let Err(why) = machine(settings, outside, &cluster, &mut found).await
    {
        found.lacking.push(why);
    }
    Ok(found)
}

/// Whether a cluster is of that service: the pod's own credentials say so, or who issues those of the cluster, or its version.
async fn is_eks(outside: &Outside, cluster: &Cluster) -> Result<bool, String> {
    let names = |variable, part| outside.env(variable).is_some_and(|path| path.contains(part));
    if names("AWS_WEB_IDENTITY_TOKEN_FILE", "eks.amazonaws.com")
        || names("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", "eks-pod-identity")
    {
        return Ok(true);
    }
    let issued = cluster.get("/.well-known/openid-configuration").await;
    if issued.is_ok_and(|issued| text(&issued, "issuer").contains("oidc.eks.")) {
        return Ok(true);
    }
    let version = cluster.get("/version").await;
    let version = version.map_err(|why| format!("isEks() error retrieving cluster version: {why}"))?;
    Ok(text(&version, "gitVersion").contains("-eks-"))
}

/// Adds what the machine's metadata service says of it, or else the node that it is and the API of EC2.
async fn machine(settings: &Eks, outside: &Outside, cluster: &Cluster, found: &mut Attributes) -> Result<(), String> {
    let identity = match Metadata::new(outside).await {
        Ok(metadata) => metadata.identity().await.ok(),
        Err(_) => None,
    };
    let (region, instance) = match &identity {
        Some(identity) => {
            found.text("cloud.account.id", text(identity, "accountId"));
            (text(identity, "region"), text(identity, "instanceId"))
        }
        None => node(settings, outside, cluster).await?,
    };
    if identity.is_some() && !found.wants("k8s.cluster.name") {
        return Ok(());
    }
    let query = format!("Action=DescribeInstances&Version=2016-11-15&InstanceId.1={instance}");
    let answer =
        api(outside, &region, &query).await.map_err(|why| format!("failed to get instance metadata: {why}"))?;
    if identity.is_none() {
        found.texts([("cloud.account.id", elements(&answer, "ownerId").next().map(unescaped))]);
    }
    let named = |(name, value): (String, String)| match name.strip_prefix("kubernetes.io/cluster/") {
        Some(cluster) => Some(cluster.to_owned()),
        None => matches!(&*name, "aws:eks:cluster-name" | "eks:cluster-name").then_some(value),
    };
    found.texts([("k8s.cluster.name", elements(&answer, "tagSet").flat_map(items).find_map(named))]);
    Ok(())
}

/// Region and identifier of the machine that is the pod's node, `aws:///us-east-1a/i-0123456789`.
async fn node(settings: &Eks, outside: &Outside, cluster: &Cluster) -> Result<(String, String), String> {
    let name = outside.env(&settings.node_from_env_var);
    let name = name.ok_or("can't get K8s Instance Metadata; node name is empty")?;
    let node = cluster.get(&format!("/api/v1/nodes/{name}")).await;
    let node = node.map_err(|why| format!("can't get K8s Instance Metadata; failed to retrieve k8s node {why}"))?;
    let provider = text(&node, "spec.providerID");
    match provider.split('/').collect::<Vec<_>>()[..] {
        ["aws:", _, _, zone, instance, ..] if !zone.is_empty() && !instance.is_empty() => {
            let mut region = zone.to_owned();
            // The letter of the zone.
            region.pop();
            Ok((region, instance.to_owned()))
        }
        _ => Err(format!("failed to retrieve region or instanceId from ProviderID: {provider}")),
    }
}

/// Where Elastic Beanstalk tells the X-Ray daemon about the environment.
const ENVIRONMENT_CONF: &str = "/var/elasticbeanstalk/xray/environment.conf";

pub(super) async fn elasticbeanstalk(settings: &ElasticBeanstalk, outside: &Outside) -> Result<Attributes, Miss> {
    let content = outside.file(ENVIRONMENT_CONF).await;
    let content = content.map_err(|why| Miss::elsewhere(format!("elastic_beanstalk metadata unavailable: {why}")))?;
    let environment = json(ENVIRONMENT_CONF, content.as_bytes())?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_elastic_beanstalk");
    found.text("service.instance.id", field(&environment, "deployment_id").unwrap_or_else(|| "0".to_owned()));
    found.text("deployment.environment", text(&environment, "environment_name"));
    found.text("service.version", text(&environment, "version_label"));
    Ok(found)
}

pub(super) fn lambda(settings: &Lambda, outside: &Outside) -> Result<Attributes, Miss> {
    let missing = || Miss::elsewhere("lambda metadata unavailable: AWS_LAMBDA_FUNCTION_NAME env var not set");
    let function = outside.env("AWS_LAMBDA_FUNCTION_NAME").ok_or_else(missing)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_lambda");
    found.text("faas.name", function);
    let stream = outside.env("AWS_LAMBDA_LOG_STREAM_NAME");
    found.texts([
        ("cloud.region", outside.env("AWS_REGION")),
        ("faas.version", outside.env("AWS_LAMBDA_FUNCTION_VERSION")),
        ("faas.instance", stream.clone()),
    ]);
    if let Some(mebibytes) = outside.env("AWS_LAMBDA_FUNCTION_MEMORY_SIZE") {
        // The convention counts bytes in a number; the reference passes the text on, and so does this.
        found.text("faas.max_memory", mebibytes);
    }
    for (name, value) in
        [("aws.log.group.names", outside.env("AWS_LAMBDA_LOG_GROUP_NAME")), ("aws.log.stream.names", stream)]
    {
        if let Some(value) = value {
            found.put(name, name, Found::List(vec![value]));
        }
    }
    Ok(found)
}
