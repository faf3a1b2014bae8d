//! Azure.

use serde_json::Value;

use super::arguments::{Aks, Azure, expressions};
use super::outside::{Attributes, Miss, Outside, field, text};

async fn compute(outside: &Outside) -> Result<Value, Miss> {
    let origin = outside.origin("http://169.254.169.254");
    let url = format!("{origin}/metadata/instance/compute?api-version=2020-09-01&format=json");
    outside.json(&url, &[("Metadata", "True")]).await.map_err(Miss::elsewhere)
}

pub(super) async fn azure(settings: &Azure, outside: &Outside) -> Result<Attributes, Miss> {
    let compute = compute(outside).await?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "azure");
    found.text("cloud.platform", "azure_vm");
    let name = field(&compute, "osProfile.computerName").filter(|name| !name.is_empty());
    found.text("host.name", name.unwrap_or_else(|| text(&compute, "name")));
    for (name, path) in [
        ("cloud.region", "location"),
        ("host.id", "vmId"),
        ("cloud.account.id", "subscriptionId"),
        ("azure.vm.name", "name"),
        ("azure.vm.size", "vmSize"),
        ("azure.vm.scaleset.name", "vmScaleSetName"),
        ("azure.resourcegroup.name", "resourceGroupName"),
    ] {
        found.text(name, text(&compute, path));
    }
    found.texts([("cloud.availability_zone", field(&compute, "zone").filter(|zone| !zone.is_empty()))]);
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
    let Ok(compute) = compute(outside).await else { return Ok(Attributes::default()) };
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "azure");
    found.text("cloud.platform", "azure_aks");
    let group = text(&compute, "resourceGroupName");
    if !group.is_empty() {
        found.text("k8s.cluster.name", cluster(&group));
    }
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
