//! Azure.

use serde_json::Value;

use super::arguments::{Aks, Azure, expressions};
use super::clouds::LINK_LOCAL;
use super::outside::{Attributes, Miss, Outside, field, text};

/// What the metadata service says, which only `detector` needs.
async fn compute(detector: &str, outside: &Outside) -> Result<Value, Miss> {
    let origin = outside.origin(LINK_LOCAL);
    let url = format!("{origin}/metadata/instance/compute?api-version=2020-09-01&format=json");
    let answer = outside.json(&url, &[("Metadata", "true")]).await;
    answer.map_err(|why| Miss::elsewhere(format!("{detector} metadata unavailable: {why}")))
}

pub(super) async fn azure(settings: &Azure, outside: &Outside) -> Result<Attributes, Miss> {
    let compute = compute("azure", outside).await?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "azure");
    found.text("cloud.platform", "azure.vm");
    // Machines of some images have no name of their own.
    let name = field(&compute, "osProfile.computerName").filter(|name| !name.is_empty());
    found.texts([("host.name", name.or_else(|| field(&compute, "name")))]);
    let of = [
        ("cloud.region", "location"),
        ("host.id", "vmId"),
        ("cloud.account.id", "subscriptionId"),
        ("azure.vm.name", "name"),
        ("azure.vm.size", "vmSize"),
    ];
    found.fields(&compute, of);
    found.texts([("azure.vm.scaleset.name", field(&compute, "vmScaleSetName"))]);
    found.text("azure.resourcegroup.name", text(&compute, "resourceGroupName"));
    found.texts([("cloud.availability_zone", field(&compute, "zone"))]);
    let tags = expressions(&settings.tags)?;
    for tag in compute.get("tagsList").and_then(Value::as_array).into_iter().flatten() {
        let (name, value) = (text(tag, "name"), text(tag, "value"));
        if tags.iter().any(|expression| expression.is_match(&name)) {
            found.free(format!("azure.tag.{name}"), value);
        }
    }
    Ok(found)
}

pub(super) async fn aks(settings: &Aks, outside: &Outside) -> Result<Attributes, Miss> {
    if outside.env("KUBERNETES_SERVICE_HOST").is_none() {
        return Ok(Attributes::default());
    }
    let compute = compute("aks", outside).await?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "azure");
    found.text("cloud.platform", "azure.aks");
    found.text("k8s.cluster.name", cluster(&text(&compute, "resourceGroupName")));
    Ok(found)
}

/// The name of a cluster in that of the resource group of its nodes, `MC_<group>_<cluster>_<location>`. Where names have
/// underlines themselves it cannot be told, and the group's name is taken whole.
fn cluster(group: &str) -> &str {
    match group.split('_').collect::<Vec<_>>()[..] {
        [mc, _, cluster, _] if mc.eq_ignore_ascii_case("mc") => cluster,
        _ => group,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cluster_stands_in_the_name_of_the_group() {
        for (group, want) in [
            ("MC_group_cluster_westus", "cluster"),
            ("mc_group_cluster_westus", "cluster"),
            ("MC_my_group_cluster_westus", "MC_my_group_cluster_westus"),
            ("group", "group"),
        ] {
            assert_eq!(cluster(group), want);
        }
    }
}
