//! Clouds whose metadata services say what there is to know.

use http::Method;
use serde_json::Value;

use super::arguments::{
    Akamai, AlibabaEcs, DigitalOcean, Hetzner, Nova, OracleCloud, Scaleway, TencentCvm, UpCloud, Vultr, expressions,
};
use super::outside::{Attributes, Miss, Outside, field, text};

/// Where most metadata services are.
const LINK_LOCAL: &str = "http://169.254.169.254";

type Detected = Result<Attributes, Miss>;

pub(super) async fn akamai(settings: &Akamai, outside: &Outside) -> Detected {
    let origin = outside.origin(LINK_LOCAL);
    let missing = |why| Miss::elsewhere(format!("akamai metadata unavailable: {why}"));
    let lifetime = [("Metadata-Token-Expiry-Seconds", "3600")];
    let token = outside.ask(Method::PUT, &format!("{origin}/v1/token"), &lifetime).await.map_err(missing)?;
    let token = String::from_utf8_lossy(&token).trim().to_owned();
    // Some versions of the service answer with a list of one text.
    let token =
        serde_json::from_str::<Vec<String>>(&token).ok().and_then(|list| list.into_iter().next()).unwrap_or(token);
    let headers = [("Metadata-Token", &*token), ("Accept", "application/json")];
    let instance = outside.json(&format!("{origin}/v1/instance"), &headers).await.map_err(missing)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "akamai_cloud");
    found.text("cloud.region", text(&instance, "region"));
    found.text("host.id", text(&instance, "id"));
    found.text("host.name", text(&instance, "label"));
    Ok(found)
}

pub(super) async fn alibaba_ecs(settings: &AlibabaEcs, outside: &Outside) -> Detected {
    let origin = outside.origin("http://100.100.100.200");
    let lifetime = [("X-aliyun-ecs-metadata-token-ttl-seconds", "21600")];
    let token = outside.ask(Method::PUT, &format!("{origin}/latest/api/token"), &lifetime).await;
    let token = String::from_utf8_lossy(&token.map_err(Miss::elsewhere)?).trim().to_owned();
    let headers = [("X-aliyun-ecs-metadata-token", &*token)];
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "alibaba_cloud");
    found.text("cloud.platform", "alibaba_cloud_ecs");
    for (name, path) in [
        ("cloud.account.id", "owner-account-id"),
        ("cloud.region", "region-id"),
        ("cloud.availability_zone", "zone-id"),
        ("host.id", "instance-id"),
        ("host.name", "hostname"),
        ("host.image.id", "image-id"),
        ("host.type", "instance/instance-type"),
    ] {
        let value = outside.get(&format!("{origin}/latest/meta-data/{path}"), &headers).await;
        found.text(name, value.map_err(|why| Miss::elsewhere(format!("failed to get {path}: {why}")))?);
    }
    Ok(found)
}

pub(super) async fn digitalocean(settings: &DigitalOcean, outside: &Outside) -> Detected {
    let url = format!("{}/metadata/v1.json", outside.origin(LINK_LOCAL));
    let missing = |why| Miss::elsewhere(format!("digitalocean metadata unavailable: {why}"));
    let droplet = outside.json(&url, &[]).await.map_err(missing)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "digitalocean");
    found.text("host.id", text(&droplet, "droplet_id"));
    found.text("host.name", text(&droplet, "hostname"));
    found.text("cloud.region", text(&droplet, "region"));
    Ok(found)
}

pub(super) async fn hetzner(settings: &Hetzner, outside: &Outside) -> Detected {
    let origin = outside.origin(LINK_LOCAL);
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "hetzner");
    for (name, path) in [
        ("host.id", "instance-id"),
        ("host.name", "hostname"),
        ("cloud.availability_zone", "availability-zone"),
        ("cloud.region", "region"),
    ] {
        let value = outside.get(&format!("{origin}/hetzner/v1/metadata/{path}"), &[]).await;
        found.text(name, value.map_err(Miss::elsewhere)?);
    }
    Ok(found)
}

pub(super) async fn nova(settings: &Nova, outside: &Outside) -> Detected {
    let origin = outside.origin(LINK_LOCAL);
    let document = outside.json(&format!("{origin}/openstack/latest/meta_data.json"), &[]).await;
    let document = document.map_err(Miss::elsewhere)?;
    if text(&document, "uuid").is_empty() {
        return Err(Miss::elsewhere("nova metadata missing field: uuid".to_owned()));
    }
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let kind = outside.get(&format!("{origin}/latest/meta-data/instance-type"), &[]).await.ok();
    found.texts([("host.type", kind.filter(|kind| !kind.is_empty()))]);
    found.text("cloud.provider", "openstack");
    found.text("cloud.platform", "openstack_nova");
    found.text("cloud.availability_zone", text(&document, "availability_zone"));
    found.text("host.id", text(&document, "uuid"));
    let name = field(&document, "hostname").filter(|name| !name.is_empty());
    found.text("host.name", name.unwrap_or_else(|| text(&document, "name")));
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
    let instance = outside.json(&url, &[("Authorization", "Bearer Oracle")]).await.map_err(Miss::elsewhere)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "oracle_cloud");
    found.text("cloud.platform", "oracle_cloud_oke");
    found.text("cloud.region", text(&instance, "canonicalRegionName"));
    found.text("cloud.availability_zone", text(&instance, "availabilityDomain"));
    found.text("host.id", text(&instance, "id"));
    found.text("host.name", text(&instance, "displayName"));
    found.text("host.type", text(&instance, "shape"));
    found.text("k8s.cluster.name", text(&instance, "metadata.oke-cluster-display-name"));
    found.texts([("oracle_cloud.realm", field(&instance, "regionInfo.realmKey"))]);
    Ok(found)
}

pub(super) async fn scaleway(settings: &Scaleway, outside: &Outside) -> Detected {
    let url = format!("{}/conf?format=json", outside.origin("http://169.254.42.42"));
    let missing = |why| Miss::elsewhere(format!("scaleway metadata unavailable: {why}"));
    let server = outside.json(&url, &[]).await.map_err(missing)?;
    let zone = text(&server, "location.zone_id");
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.account.id", text(&server, "organization"));
    found.text("cloud.availability_zone", &*zone);
    found.text("cloud.provider", "scaleway_cloud");
    found.text("cloud.platform", "scaleway_cloud_compute");
    let region = zone.rsplit_once('-').map(|(region, _)| region.to_owned()).filter(|region| !region.is_empty());
    found.texts([("cloud.region", region)]);
    for (name, path) in [
        ("host.id", "id"),
        ("host.image.id", "image.id"),
        ("host.image.name", "image.name"),
        ("host.name", "name"),
        ("host.type", "commercial_type"),
    ] {
        found.text(name, text(&server, path));
    }
    Ok(found)
}

pub(super) async fn tencent_cvm(settings: &TencentCvm, outside: &Outside) -> Detected {
    let origin = outside.origin("http://metadata.tencentyun.com");
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "tencent_cloud");
    found.text("cloud.platform", "tencent_cloud_cvm");
    for (name, path) in [
        ("cloud.account.id", "app-id"),
        ("cloud.region", "placement/region"),
        ("cloud.availability_zone", "placement/zone"),
        ("host.id", "instance-id"),
        ("host.name", "instance-name"),
        ("host.image.id", "instance/image-id"),
        ("host.type", "instance/instance-type"),
    ] {
        let value = outside.get(&format!("{origin}/latest/meta-data/{path}"), &[]).await;
        found.text(name, value.map_err(|why| Miss::elsewhere(format!("failed to get {path}: {why}")))?);
    }
    Ok(found)
}

pub(super) async fn upcloud(settings: &UpCloud, outside: &Outside) -> Detected {
    let url = format!("{}/metadata/v1.json", outside.origin(LINK_LOCAL));
    let server = outside.json(&url, &[]).await.map_err(Miss::elsewhere)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", text(&server, "cloud_name"));
    found.text("cloud.region", text(&server, "region"));
    found.text("host.id", text(&server, "instance_id"));
    found.text("host.name", text(&server, "hostname"));
    Ok(found)
}

pub(super) async fn vultr(settings: &Vultr, outside: &Outside) -> Detected {
    let url = format!("{}/v1.json", outside.origin(LINK_LOCAL));
    let server = outside.json(&url, &[]).await.map_err(Miss::elsewhere)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "vultr");
    found.text("cloud.region", text(&server, "region.regioncode").to_lowercase());
    found.text("host.id", text(&server, "instance-v2-id"));
    found.text("host.name", text(&server, "hostname"));
    Ok(found)
}
