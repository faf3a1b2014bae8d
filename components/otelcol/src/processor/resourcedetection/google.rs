//! Google Cloud.

use super::arguments::Gcp;
use super::clouds::LINK_LOCAL;
use super::outside::{Attributes, Found, Miss, Outside};

/// Metadata of Google.
struct Metadata<'a> {
    outside: &'a Outside,
    origin: String,
}

impl Metadata<'_> {
    async fn get(&self, path: &str) -> Result<String, String> {
        let url = format!("{}/computeMetadata/v1/{path}", self.origin);
        self.outside.get(&url, &[("Metadata-Flavor", "Google")]).await
    }

    /// The last part of what stands at a path, which is the name of a resource.
    async fn last(&self, path: &str) -> Result<String, String> {
        let name = self.get(path).await?;
        Ok(name.rsplit('/').next().unwrap_or_default().to_owned())
    }

    /// The zone, and the region that it lies in: `us-central1-c` and `us-central1`.
    async fn zone(&self, found: &mut Attributes) {
        let place =
            self.last("instance/zone").await.and_then(|zone| match zone.splitn(3, '-').collect::<Vec<_>>()[..] {
                [continent, area, _] => Ok((format!("{continent}-{area}"), zone)),
                _ => Err(format!("zone was not in the expected format: country-region-zone.  Got {zone}")),
            });
        match place {
            Ok((region, zone)) => {
                found.text("cloud.region", region);
                found.text("cloud.availability_zone", zone);
            }
            Err(why) => found.lacking.push(why),
        }
    }
}

pub(super) async fn gcp(settings: &Gcp, outside: &Outside) -> Result<Attributes, Miss> {
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    let env = |name: &str| outside.env(name);
    if let [Some(project), Some(region), Some(instance)] = ["BMS_PROJECT_ID", "BMS_REGION", "BMS_INSTANCE_ID"].map(env)
    {
        found.text("cloud.provider", "gcp");
        found.text("cloud.account.id", project);
        found.text("cloud.platform", "gcp_bare_metal_solution");
        found.text("host.name", instance);
        found.text("cloud.region", region);
        return Ok(found);
    }
    let named = env("GCE_METADATA_HOST");
    let origin = named.as_ref().map_or_else(|| outside.origin(LINK_LOCAL).to_owned(), |host| format!("http://{host}"));
    let metadata = Metadata { outside, origin };
    let project = metadata.get("project/project-id").await;
    if project.is_err() && named.is_none() && metadata.get("").await.is_err() {
        // The program runs elsewhere, and the user who insists means machines of Google.
        return Ok(Attributes::default());
    }
    found.text("cloud.provider", "gcp");
    found.expected("cloud.account.id", project);
    let location = match env("KUBERNETES_SERVICE_HOST") {
        Some(_) => metadata.last("instance/attributes/cluster-location").await.ok(),
        None => None,
    };
    let given = |names: &[&str]| {
        let value = names.iter().find_map(|name| env(name));
        value.ok_or_else(|| "environment variable not found".to_owned())
    };
    if let Some(location) = location {
        found.text("cloud.platform", "gcp_kubernetes_engine");
        // A zone is a region with a further letter.
        match (location.matches('-').count(), location.rsplit_once('-')) {
            (2, Some((region, _))) => {
                found.text("cloud.availability_zone", &*location);
                found.text("cloud.region", region);
            }
            (1, _) => found.text("cloud.region", location),
            _ => found.lacking.push(format!("unrecognized format for cluster location: {location}")),
        }
        found.expected("k8s.cluster.name", metadata.get("instance/attributes/cluster-name").await);
        found.expected("host.id", metadata.get("instance/id").await);
        // It is hidden from pods that have identities of their own.
        found.texts([("host.name", metadata.get("instance/name").await.ok())]);
        return Ok(found);
    }
    let is_function = env("FUNCTION_TARGET").is_some();
    let is_service = is_function || env("K_CONFIGURATION").is_some();
    let is_job = !is_service && env("CLOUD_RUN_JOB").is_some();
    if is_service || is_job || env("CLOUD_RUN_WORKER_POOL").is_some() {
        found.text("cloud.platform", if is_function { "gcp_cloud_functions" } else { "gcp_cloud_run" });
        found.expected("faas.name", given(&["K_SERVICE", "CLOUD_RUN_JOB", "CLOUD_RUN_WORKER_POOL"]));
        let region = metadata.last("instance/region").await;
        let instance = metadata.get("instance/id").await;
        if is_job {
            found.expected("cloud.region", region);
            found.expected("faas.instance", instance);
            found.expected("gcp.cloud_run.job.execution", given(&["CLOUD_RUN_EXECUTION"]));
            found.expected("gcp.cloud_run.job.task_index", given(&["CLOUD_RUN_TASK_INDEX"]));
        } else {
            found.expected("faas.version", given(&["CLOUD_RUN_REVISION", "K_REVISION"]));
            found.expected("faas.instance", instance);
            found.expected("cloud.region", region);
        }
    } else if env("GAE_ENV").as_deref() == Some("standard") || env("GAE_SERVICE").is_some() {
        found.text("cloud.platform", "gcp_app_engine");
        for (name, variable) in
            [("faas.name", "GAE_SERVICE"), ("faas.version", "GAE_VERSION"), ("faas.instance", "GAE_INSTANCE")]
        {
            found.expected(name, given(&[variable]));
        }
        if env("GAE_ENV").as_deref() == Some("standard") {
            found.expected("cloud.availability_zone", metadata.last("instance/zone").await);
            found.expected("cloud.region", metadata.last("instance/region").await);
        } else {
            metadata.zone(&mut found).await;
        }
    } else if let Ok(kind) = metadata.get("instance/machine-type").await {
        found.text("cloud.platform", "gcp_compute_engine");
        metadata.zone(&mut found).await;
        found.text("host.type", kind);
        found.expected("host.id", metadata.get("instance/id").await);
        let name = metadata.get("instance/name").await;
        found.expected("host.name", name.clone());
        found.expected("gcp.gce.instance.hostname", metadata.get("instance/hostname").await);
        found.expected("gcp.gce.instance.name", name);
        if let Ok(creator) = metadata.get("instance/attributes/created-by").await {
            group_manager(&creator, &mut found);
        }
    }
    Ok(found)
}

/// The group of machines that made this one: `projects/1/zones/us-central1-a/instanceGroupManagers/name`.
fn group_manager(creator: &str, found: &mut Attributes) {
    let ["projects", _, kind, place, "instanceGroupManagers", name] = creator.split('/').collect::<Vec<_>>()[..] else {
        return;
    };
    let attribute = match kind {
        "zones" => "zone",
        "regions" => "region",
        _ => return,
    };
    for (part, value) in [("name", name), (attribute, place)] {
        let setting = format!("gcp.gce.instance.group_manager.{part}");
        found.put(&setting, &format!("gcp.gce.instance_group_manager.{part}"), Found::Text(value.to_owned()));
    }
}
