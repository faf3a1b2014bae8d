//! Google Cloud.

use super::arguments::Gcp;
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
}

/// The region of a zone.
fn region(zone: &str) -> String {
    zone.rsplit_once('-').map(|(region, _)| region.to_owned()).unwrap_or_default()
}

pub(super) async fn gcp(settings: &Gcp, outside: &Outside) -> Result<Attributes, Miss> {
    let origin = match outside.env("GCE_METADATA_HOST") {
        Some(host) => format!("http://{host}"),
        None => outside.origin("http://169.254.169.254").to_owned(),
    };
    let metadata = Metadata { outside, origin };
    let project = metadata.get("project/project-id").await.map_err(Miss::elsewhere)?;
    let mut found = Attributes::of(settings.resource_attributes.wanted());
    found.text("cloud.provider", "gcp");
    found.text("cloud.account.id", project);
    let env = |name: &str| outside.env(name);
    if env("KUBERNETES_SERVICE_HOST").is_some() {
        found.text("cloud.platform", "gcp_kubernetes_engine");
        let location = metadata.last("instance/attributes/cluster-location").await?;
        // A zone is a region with a further letter.
        let name = if location.matches('-').count() == 1 { "cloud.region" } else { "cloud.availability_zone" };
        found.text(name, location);
        found.text("k8s.cluster.name", metadata.get("instance/attributes/cluster-name").await?);
        found.text("host.id", metadata.get("instance/id").await?);
        // It is hidden from pods that have identities of their own.
        found.texts([("host.name", metadata.get("instance/name").await.ok())]);
    } else if env("FUNCTION_TARGET").is_some() || env("K_CONFIGURATION").is_some() {
        let is_function = env("FUNCTION_TARGET").is_some();
        found.text("cloud.platform", if is_function { "gcp_cloud_functions" } else { "gcp_cloud_run" });
        found.texts([("faas.name", env("K_SERVICE")), ("faas.version", env("K_REVISION"))]);
        found.text("faas.instance", metadata.get("instance/id").await?);
        found.text("cloud.region", metadata.last("instance/region").await?);
    } else if let Some(job) = env("CLOUD_RUN_JOB") {
        found.text("cloud.platform", "gcp_cloud_run");
        found.text("faas.name", job);
        found.text("cloud.region", metadata.last("instance/region").await?);
        found.text("faas.instance", metadata.get("instance/id").await?);
        found.texts([
            ("gcp.cloud_run.job.execution", env("CLOUD_RUN_EXECUTION")),
            ("gcp.cloud_run.job.task_index", env("CLOUD_RUN_TASK_INDEX")),
        ]);
    } else if env("GAE_SERVICE").is_some() {
        found.text("cloud.platform", "gcp_app_engine");
        found.texts([
            ("faas.name", env("GAE_SERVICE")),
            ("faas.version", env("GAE_VERSION")),
            ("faas.instance", env("GAE_INSTANCE")),
        ]);
        let zone = metadata.last("instance/zone").await?;
        let is_standard = env("GAE_ENV").as_deref() == Some("standard");
        let of_zone = region(&zone);
        found.text("cloud.region", if is_standard { metadata.last("instance/region").await? } else { of_zone });
        found.text("cloud.availability_zone", zone);
    } else if let Ok(kind) = metadata.get("instance/machine-type").await {
        found.text("cloud.platform", "gcp_compute_engine");
        let zone = metadata.last("instance/zone").await?;
        found.text("cloud.region", region(&zone));
        found.text("cloud.availability_zone", zone);
        found.text("host.type", kind);
        found.text("host.id", metadata.get("instance/id").await?);
        let name = metadata.get("instance/name").await?;
        found.text("host.name", &*name);
        found.text("gcp.gce.instance.name", name);
        found.texts([("gcp.gce.instance.hostname", metadata.get("instance/hostname").await.ok())]);
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
