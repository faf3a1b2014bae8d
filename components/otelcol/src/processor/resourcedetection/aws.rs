//! Amazon Web Services.

use std::time::Duration;

use corten_net::{Body, Client, ClientConfig, SigV4Config};
use http::{Method, Request};
use serde_json::Value;

use super::arguments::{Ec2, Ecs, Eks, ElasticBeanstalk, Lambda, expressions};
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
        let origin = origin.unwrap_or_else(|| outside.origin("http://169.254.169.254").to_owned());
        let origin = origin.trim_end_matches('/').to_owned();
        let lifetime = [("X-aws-ec2-metadata-token-ttl-seconds", "300")];
        let token = outside.ask(Method::PUT, &format!("{origin}/latest/api/token"), &lifetime).await;
        // Old services know no tokens.
        let token = token.ok().map(|token| String::from_utf8_lossy(&token).trim().to_owned());
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
            Err(why) if attempt >= settings.max_attempts => return Err(unavailable(why)),
            Err(_) => {
                tokio::time::sleep(wait.min(settings.max_backoff)).await;
                wait *= 2;
                attempt += 1;
            }
        }
    };
    let identity = metadata.identity().await.map_err(|why| format!("failed getting identity document: {why}"))?;
    let hostname = metadata.get("meta-data/hostname").await;
    let hostname = hostname.map_err(|why| format!("failed getting hostname: {why}"))?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_ec2");
    for (name, path) in [
        ("cloud.region", "region"),
        ("cloud.account.id", "accountId"),
        ("cloud.availability_zone", "availabilityZone"),
        ("host.id", "instanceId"),
        ("host.image.id", "imageId"),
        ("host.type", "instanceType"),
    ] {
        found.text(name, text(&identity, path));
    }
    found.text("host.name", hostname);
    if !settings.tags.is_empty() {
        let expressions = expressions(&settings.tags)?;
        let tags = if settings.tags_from_imds {
            let names = metadata.get("meta-data/tags/instance").await;
            let names = names.map_err(|why| format!("failed fetching ec2 instance tags: {why}"))?;
            let mut tags = Vec::new();
            for name in names.lines().map(str::trim).filter(|name| expressions.iter().any(|it| it.is_match(name))) {
                let value = metadata.get(&format!("meta-data/tags/instance/{name}")).await;
                tags.push((name.to_owned(), value.map_err(|why| format!("failed fetching ec2 instance tags: {why}"))?));
            }
            tags
        } else {
            let tags = tags(outside, &text(&identity, "region"), &text(&identity, "instanceId")).await;
            tags.map_err(|why| format!("failed fetching ec2 instance tags: {why}"))?
        };
        for (name, value) in tags {
            if expressions.iter().any(|expression| expression.is_match(&name)) {
                found.free(format!("ec2.tag.{name}"), value);
            }
        }
    }
    Ok(found)
}

/// The tags of a machine, by the API.
async fn tags(outside: &Outside, region: &str, instance: &str) -> Result<Vec<(String, String)>, String> {
    let filter = format!("Filter.1.Name=resource-id&Filter.1.Value.1={instance}");
    let answer = api(outside, region, &format!("Action=DescribeTags&Version=2016-11-15&{filter}")).await?;
    let items = elements(&answer, "item");
    let tag = |item: &str| Some((elements(item, "key").next().map(unescaped)?, value(item)));
    fn value(item: &str) -> String {
        elements(item, "value").next().map(unescaped).unwrap_or_default()
    }
    Ok(items.filter_map(tag).collect())
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
    let endpoint = outside.env("ECS_CONTAINER_METADATA_URI_V4").or_else(|| outside.env("ECS_CONTAINER_METADATA_URI"));
    let Some(endpoint) = endpoint.map(|endpoint| endpoint.trim().trim_end_matches('/').to_owned()) else {
        return Ok(Attributes::default());
    };
    let task = outside.json(&format!("{endpoint}/task"), &[]).await?;
    let own = outside.json(&endpoint, &[]).await?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let arn = text(&task, "TaskARN");
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_ecs");
    found.text("aws.ecs.task.arn", &*arn);
    found.text("aws.ecs.task.id", arn.rsplit('/').next().unwrap_or_default());
    found.text("aws.ecs.task.family", text(&task, "Family"));
    found.text("aws.ecs.task.revision", text(&task, "Revision"));
    let (region, account) = match arn.split(':').collect::<Vec<_>>()[..] {
        [_, _, _, region, account, ..] => (region.to_owned(), account.to_owned()),
        _ => Default::default(),
    };
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    found.texts([("cloud.account.id", given(&account)), ("cloud.region", given(&region))]);
    let cluster = text(&task, "Cluster");
    let is_arn = cluster.contains(':');
    let cluster = if is_arn { cluster } else { format!("arn:aws:ecs:{region}:{account}:cluster/{cluster}") };
    found.text("aws.ecs.cluster.arn", cluster);
    found.texts([("cloud.availability_zone", given(&text(&task, "AvailabilityZone")))]);
    let launched = text(&task, "LaunchType").to_lowercase();
    if matches!(&*launched, "ec2" | "fargate") {
        found.text("aws.ecs.launchtype", launched);
    }
    logs(&task, &own, &account, &mut found);
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
    if outside.env("KUBERNETES_SERVICE_HOST").is_none() {
        return Ok(Attributes::default());
    }
    let cluster = Cluster::of_pod(outside).await?;
    let version = cluster.get("/version").await.map(|version| text(&version, "gitVersion")).unwrap_or_default();
    if !version.contains("-eks-") {
        let auth = cluster.get("/api/v1/namespaces/kube-system/configmaps/aws-auth").await;
        auth.map_err(|why| format!("isEks() error retrieving auth configmap: {why}"))?;
    }
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_eks");
    if found.wants("cloud.account.id") || found.wants("k8s.cluster.name") {
        let (region, instance, account) = machine(settings, outside, &cluster).await?;
        if let Some(account) = account {
            found.text("cloud.account.id", account);
        } else if found.wants("cloud.account.id") {
            let query = format!("Action=DescribeInstances&Version=2016-11-15&InstanceId.1={instance}");
            let answer = api(outside, &region, &query).await?;
            found.texts([("cloud.account.id", elements(&answer, "ownerId").next().map(unescaped))]);
        }
        if found.wants("k8s.cluster.name") {
            let tags = tags(outside, &region, &instance).await?;
            let named = |(name, value): &(String, String)| match name.strip_prefix("kubernetes.io/cluster/") {
                Some(cluster) => Some(cluster.to_owned()),
                None => (name == "eks:cluster-name").then(|| value.clone()),
            };
            found.texts([("k8s.cluster.name", tags.iter().find_map(named))]);
        }
    }
    Ok(found)
}

/// Region, identifier and account of the machine, by its metadata service or by the node that it is.
async fn machine(
    settings: &Eks,
    outside: &Outside,
    cluster: &Cluster,
) -> Result<(String, String, Option<String>), String> {
    if let Ok(metadata) = Metadata::new(outside).await
        && let Ok(identity) = metadata.identity().await
    {
        return Ok((text(&identity, "region"), text(&identity, "instanceId"), field(&identity, "accountId")));
    }
    let node = outside.env(&settings.node_from_env_var);
    let node = node.ok_or_else(|| format!("environment variable {} is not set", settings.node_from_env_var))?;
    let node = cluster.get(&format!("/api/v1/nodes/{node}")).await?;
    // `aws:///us-east-1a/i-0123456789`.
    let provider = text(&node, "spec.providerID");
    let mut parts = provider.rsplit('/');
    let (Some(instance), Some(zone)) = (parts.next(), parts.next()) else {
        return Err("the node does not say which machine it is".to_owned());
    };
    let region = zone.trim_end_matches(|last: char| last.is_ascii_lowercase());
    Ok((region.to_owned(), instance.to_owned(), None))
}

/// Where Elastic Beanstalk tells the X-Ray daemon about the environment.
const ENVIRONMENT_CONF: &str = "/var/elasticbeanstalk/xray/environment.conf";

pub(super) async fn elasticbeanstalk(settings: &ElasticBeanstalk, outside: &Outside) -> Result<Attributes, Miss> {
    let Ok(content) = outside.file(ENVIRONMENT_CONF).await else { return Ok(Attributes::default()) };
    let environment = json(ENVIRONMENT_CONF, content.as_bytes())?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "aws");
    found.text("cloud.platform", "aws_elastic_beanstalk");
    found.text("service.instance.id", field(&environment, "deployment_id").unwrap_or_else(|| "0".to_owned()));
    found.text("deployment.environment", text(&environment, "environment_name"));
    found.text("service.version", text(&environment, "version_label"));
    Ok(found)
}

pub(super) fn lambda(settings: &Lambda, outside: &Outside) -> Attributes {
    let Some(function) = outside.env("AWS_LAMBDA_FUNCTION_NAME") else { return Attributes::default() };
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
    found
}
