//! Clouds whose metadata services say what there is to know.

use http::Method;
use serde_json::Value;

use super::arguments::{
    Akamai, AlibabaEcs, DigitalOcean, Hetzner, Nova, OracleCloud, Scaleway, TencentCvm, UpCloud, Vultr, expressions,
};
use super::outside::{Attributes, Miss, Outside, field, text};

/// Where most metadata services are.
pub(super) const LINK_LOCAL: &str = "http://169.254.169.254";

type Detected = Result<Attributes, Miss>;

pub(super) async fn akamai(settings: &Akamai, outside: &Outside) -> Detected {
    let origin = outside.origin(LINK_LOCAL);
    let missing = |why| Miss::elsewhere(format!("akamai metadata unavailable: {why}"));
    let lifetime = [("Metadata-Token-Expiry-Seconds", "3600")];
    let token = outside.put(&format!("{origin}/v1/token"), &lifetime).await.map_err(missing)?;
    // Some versions of the service answer with a list of one text.
    let token =
        serde_json::from_str::<Vec<String>>(&token).ok().and_then(|list| list.into_iter().next()).unwrap_or(token);
    let headers = [("Metadata-Token", &*token), ("Accept", "application/json")];
    let instance = outside.json(&format!("{origin}/v1/instance"), &headers).await.map_err(missing)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "akamai_cloud");
    found.fields(&instance, [("cloud.region", "region"), ("host.id", "id"), ("host.name", "label")]);
    Ok(found)
}

/// Adds what stands at paths below a URL, in texts of their own. Each path has the name that a failure gives it.
async fn paths(
    found: &mut Attributes,
    outside: &Outside,
    (url, headers): (&str, &[(&str, &str)]),
    of: &[(&str, &str, &str)],
) -> Result<(), Miss> {
    for (name, path, label) in of {
        let value = outside.get(&format!("{url}/{path}"), headers).await;
        found.text(name, value.map_err(|why| Miss::elsewhere(format!("failed to get {label}: {why}")))?);
    }
    Ok(())
}

pub(super) async fn alibaba_ecs(settings: &AlibabaEcs, outside: &Outside) -> Detected {
    let origin = outside.origin("http://100.100.100.200");
    let lifetime = [("X-aliyun-ecs-metadata-token-ttl-seconds", "21600")];
    let token = outside.put(&format!("{origin}/latest/api/token"), &lifetime).await.map_err(Miss::elsewhere)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "alibaba_cloud");
    found.text("cloud.platform", "alibaba_cloud_ecs");
    let of = [
        ("cloud.account.id", "owner-account-id", "owner-account-id"),
        ("cloud.region", "region-id", "region-id"),
        ("cloud.availability_zone", "zone-id", "zone-id"),
        ("host.id", "instance-id", "instance-id"),
        ("host.name", "hostname", "hostname"),
        ("host.image.id", "image-id", "image-id"),
        ("host.type", "instance/instance-type", "instance/instance-type"),
    ];
    let headers = [("X-aliyun-ecs-metadata-token", &*token)];
    paths(&mut found, outside, (&format!("{origin}/latest/meta-data"), &headers), &of).await?;
    Ok(found)
}

pub(super) async fn digitalocean(settings: &DigitalOcean, outside: &Outside) -> Detected {
    let url = format!("{}/metadata/v1.json", outside.origin(LINK_LOCAL));
    let missing = |why| Miss::elsewhere(format!("digitalocean metadata unavailable: {why}"));
    let droplet = outside.json(&url, &[]).await.map_err(missing)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "digitalocean");
    found.fields(&droplet, [("host.id", "droplet_id"), ("host.name", "hostname"), ("cloud.region", "region")]);
    Ok(found)
}

pub(super) async fn hetzner(settings: &Hetzner, outside: &Outside) -> Detected {
    let url = format!("{}/hetzner/v1/metadata", outside.origin(LINK_LOCAL));
    let name = outside.get(&format!("{url}/hostname"), &[]).await.unwrap_or_default();
    if name.is_empty() {
        // The program runs elsewhere, and the user who insists means machines of Hetzner.
        return Ok(Attributes::default());
    }
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "hetzner");
    let id = outside.get(&format!("{url}/instance-id"), &[]).await.and_then(|id| match id.parse::<i64>() {
        Ok(number) => Ok(number.to_string()),
        Err(_) => Err(format!("strconv.ParseInt: parsing {id:?}: invalid syntax")),
    });
    found.expected("host.id", id);
    found.text("host.name", name);
    for (name, path) in [("cloud.region", "region"), ("cloud.availability_zone", "availability-zone")] {
        found.expected(name, outside.get(&format!("{url}/{path}"), &[]).await);
    }
    Ok(found)
}

pub(super) async fn nova(settings: &Nova, outside: &Outside) -> Detected {
    let origin = outside.origin(LINK_LOCAL);
    let document = outside.json(&format!("{origin}/openstack/latest/meta_data.json"), &[]).await;
    let document = document.map_err(Miss::elsewhere)?;
    if text(&document, "uuid").is_empty() {
        return Err(Miss::elsewhere("instance ID (uuid) not found in metadata"));
    }
    if text(&document, "hostname").is_empty() {
        return Err(Miss::Failed("failed getting hostname: hostname not found in metadata".to_owned()));
    }
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.texts([("host.type", outside.get(&format!("{origin}/latest/meta-data/instance-type"), &[]).await.ok())]);
    found.text("cloud.provider", "openstack");
    found.text("cloud.platform", "openstack_nova");
    let of = [("cloud.availability_zone", "availability_zone"), ("host.id", "uuid"), ("host.name", "hostname")];
    found.fields(&document, of);
    let labels = expressions(&settings.labels)?;
    for (name, value) in document.get("meta").and_then(Value::as_object).into_iter().flatten() {
        if let Some(value) = value.as_str()
            && labels.iter().any(|label| label.is_match(name))
        {
            found.free(format!("openstack.nova.meta.{name}"), value);
        }
    }
    Ok(found)
}

pub(super) async fn oraclecloud(settings: &OracleCloud, outside: &Outside) -> Detected {
    let url = format!("{}/opc/v2/instance/", outside.origin(LINK_LOCAL));
    let headers = [("Authorization", "Bearer Oracle")];
    if outside.ask(Method::HEAD, &url, &headers).await.is_err() {
        // The program runs elsewhere, and the user who insists means machines of Oracle.
        return Ok(Attributes::default());
    }
    let missing = |why| Miss::elsewhere(format!("failed to get Oracle Cloud metadata: {why}"));
    let instance = outside.json(&url, &headers).await.map_err(missing)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "oracle_cloud");
    found.text("cloud.platform", "oracle_cloud_oke");
    let of = [
        ("cloud.region", "canonicalRegionName"),
        ("cloud.availability_zone", "availabilityDomain"),
        ("host.id", "id"),
        ("host.name", "displayName"),
        ("host.type", "shape"),
        ("k8s.cluster.name", "metadata.oke-cluster-display-name"),
        ("oracle_cloud.realm", "metadata.realm"),
    ];
    found.fields(&instance, of);
    Ok(found)
}

pub(super) async fn scaleway(settings: &Scaleway, outside: &Outside) -> Detected {
    let missing = |why| Miss::elsewhere(format!("scaleway metadata unavailable: {why}"));
    let server = match outside.json(&format!("{}/conf?format=json", outside.origin("http://169.254.42.42")), &[]).await
    {
        Ok(server) => server,
        // Machines without IPv4 find it there.
        Err(_) => {
            let url = format!("{}/conf?format=json", outside.origin("http://[fd00:42::42]"));
            outside.json(&url, &[]).await.map_err(missing)?
        }
    };
    let zone = text(&server, "location.zone_id");
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.account.id", text(&server, "organization"));
    found.text("cloud.availability_zone", &*zone);
    found.text("cloud.provider", "scaleway_cloud");
    found.text("cloud.platform", "scaleway_cloud_compute");
    found.texts([("cloud.region", zone.rsplit_once('-').map(|(region, _)| region.to_owned()))]);
    let of = [
        ("host.id", "id"),
        ("host.image.id", "image.id"),
        ("host.image.name", "image.name"),
        ("host.name", "name"),
        ("host.type", "commercial_type"),
    ];
    found.fields(&server, of);
    Ok(found)
}

pub(super) async fn tencent_cvm(settings: &TencentCvm, outside: &Outside) -> Detected {
    let url = format!("{}/latest/meta-data", outside.origin("http://metadata.tencentyun.com"));
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "tencent_cloud");
    found.text("cloud.platform", "tencent_cloud_cvm");
    let of = [
        ("cloud.account.id", "app-id", "app-id"),
        ("cloud.region", "placement/region", "region"),
        ("cloud.availability_zone", "placement/zone", "zone"),
        ("host.id", "instance-id", "instance-id"),
        ("host.name", "instance-name", "instance-name"),
        ("host.image.id", "instance/image-id", "image-id"),
        ("host.type", "instance/instance-type", "instance-type"),
    ];
    paths(&mut found, outside, (&url, &[]), &of).await?;
    Ok(found)
}

pub(super) async fn upcloud(settings: &UpCloud, outside: &Outside) -> Detected {
    let url = format!("{}/metadata/v1.json", outside.origin(LINK_LOCAL));
    let server = outside.json(&url, &[]).await.map_err(Miss::elsewhere)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let of = [
        ("cloud.provider", "cloud_name"),
        ("cloud.region", "region"),
        ("host.id", "instance_id"),
        ("host.name", "hostname"),
    ];
    found.fields(&server, of);
    Ok(found)
}

pub(super) async fn vultr(settings: &Vultr, outside: &Outside) -> Detected {
    let url = format!("{}/v1.json", outside.origin(LINK_LOCAL));
    let server = outside.json(&url, &[]).await.map_err(Miss::elsewhere)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "vultr");
    found.text("cloud.region", text(&server, "region.regioncode").to_lowercase());
    // Old machines have no identifier of the second kind.
    let id = field(&server, "instance-v2-id").filter(|id| !id.is_empty());
    found.text("host.id", id.unwrap_or_else(|| text(&server, "instanceid")));
    found.text("host.name", text(&server, "hostname"));
    Ok(found)
}
