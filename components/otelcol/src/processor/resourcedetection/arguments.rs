//! What a user can say of each detector.

use std::collections::BTreeSet;
use std::time::Duration;

use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::schema::Stability;
use corten_net::Secret;
use corten_signal::regex::GoRegex;

use crate::tls::TlsClientArguments;

/// Whether an attribute is set.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Toggle {
    /// Whether it is set.
    enabled: bool,
}

fn on() -> Toggle {
    Toggle { enabled: true }
}

fn off() -> Toggle {
    Toggle { enabled: false }
}

/// The attributes of a detector that are set.
pub(super) type Wanted = BTreeSet<&'static str>;

macro_rules! attributes {
    ($name:ident: $($state:ident $field:ident $attribute:literal,)*) => {
        /// The attributes that the detector can set.
        #[derive(Arguments, Clone, Debug, PartialEq)]
        pub(super) struct $name {
            $(
                /// The attribute of this name.
                #[block(name = $attribute, default_with = $state)]
                $field: Toggle,
            )*
        }

        impl $name {
            /// The attributes that are set.
            pub(super) fn wanted(&self) -> Wanted {
                [$(($attribute, &self.$field)),*]
                    .into_iter()
                    .filter(|(_, toggle)| toggle.enabled)
                    .map(|(name, _)| name)
                    .collect()
            }
        }
    };
}

/// Detectors that have nothing to say but which attributes they set.
macro_rules! plain {
    ($($(#[$doc:meta])* $name:ident $attributes:ident,)*) => {
        $(
            $(#[$doc])*
            #[derive(Arguments, Clone, Debug, PartialEq)]
            pub(super) struct $name {
                /// Which attributes are set.
                #[block(default)]
                pub(super) resource_attributes: $attributes,
            }
        )*
    };
}

/// Detectors that may insist on the metadata service.
macro_rules! insisting {
    ($($(#[$doc:meta])* $name:ident $attributes:ident,)*) => {
        $(
            $(#[$doc])*
            #[derive(Arguments, Clone, Debug, PartialEq)]
            pub(super) struct $name {
                /// Whether it is a failure that the metadata service cannot be reached.
                #[arg(default = false)]
                pub(super) fail_on_missing_metadata: bool,
                /// Which attributes are set.
                #[block(default)]
                pub(super) resource_attributes: $attributes,
            }
        )*
    };
}

plain! {
    /// Akamai (Linode): its metadata service.
    Akamai AkamaiAttributes,
    /// Azure Kubernetes Service: the environment of a pod and the metadata service of Azure.
    Aks AksAttributes,
    /// DigitalOcean: its metadata service.
    DigitalOcean DigitalOceanAttributes,
    /// The Docker daemon, over its socket.
    Docker DockerAttributes,
    /// Elastic Container Service of AWS: the endpoint of the task.
    Ecs EcsAttributes,
    /// Elastic Beanstalk of AWS: the file of the X-Ray daemon.
    ElasticBeanstalk ElasticBeanstalkAttributes,
    /// Google Cloud: its metadata service and the environment.
    Gcp GcpAttributes,
    /// Heroku: the environment of a dyno.
    Heroku HerokuAttributes,
    /// Hetzner Cloud: its metadata service.
    Hetzner HetznerAttributes,
    /// Lambda of AWS: the environment of a function.
    Lambda LambdaAttributes,
    /// Oracle Cloud: its metadata service.
    OracleCloud OracleCloudAttributes,
    /// Scaleway: its metadata service.
    Scaleway ScalewayAttributes,
}

insisting! {
    /// Elastic Compute Service of Alibaba Cloud: its metadata service.
    AlibabaEcs AlibabaEcsAttributes,
    /// Cloud Virtual Machine of Tencent Cloud: its metadata service.
    TencentCvm TencentCvmAttributes,
    /// UpCloud: its metadata service.
    UpCloud UpCloudAttributes,
    /// Vultr: its metadata service.
    Vultr VultrAttributes,
}

/// Regular expressions for names.
pub(super) fn expressions(of: &[String]) -> Result<Vec<GoRegex>, String> {
    of.iter().map(|text| GoRegex::new(text).map_err(|error| error.to_string())).collect()
}

fn check_expressions(argument: &'static str, of: &[String]) -> Result<(), CheckErrors> {
    expressions(of).map(drop).map_err(|error| CheckErrors::of(&[argument], error))
}

/// Virtual machines of Azure: their metadata service.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Azure {
    /// Regular expressions for the names of tags that become attributes, `azure.tag.<name>`.
    #[arg(default = [])]
    pub(super) tags: Vec<String>,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: AzureAttributes,
}

impl Azure {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_expressions("tags", &self.tags)
    }
}

/// A Consul agent.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Consul {
    /// Where the agent is. Empty means what `CONSUL_HTTP_ADDR` says, or `127.0.0.1:8500`.
    #[arg(optional)]
    pub(super) address: String,
    /// The data centre to ask. Empty means the agent's own.
    #[arg(optional)]
    pub(super) datacenter: String,
    /// The token to show. Empty means what `CONSUL_HTTP_TOKEN` says.
    #[arg(optional)]
    pub(super) token: Secret,
    /// The namespace to ask. Empty means the default one.
    #[arg(optional)]
    pub(super) namespace: String,
    /// The names of the node's metadata that become attributes.
    #[arg(default = [])]
    pub(super) meta: Vec<String>,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: ConsulAttributes,
}

/// OneAgent of Dynatrace: the file with what it knows of the host.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct Dynatrace {}

/// Elastic Compute Cloud of AWS: its metadata service.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Ec2 {
    /// Regular expressions for the names of tags that become attributes, `ec2.tag.<name>`. They are asked of the API of AWS,
    /// which the machine must be allowed to use.
    #[arg(default = [])]
    pub(super) tags: Vec<String>,
    /// How often the metadata service is asked before it counts as missing.
    #[arg(default = 3)]
    pub(super) max_attempts: u32,
    /// The longest wait between two of these attempts.
    #[arg(default = "20s")]
    pub(super) max_backoff: Duration,
    /// Whether it is a failure that the metadata service cannot be reached.
    #[arg(default = false)]
    pub(super) fail_on_missing_metadata: bool,
    /// Whether tags are asked of the metadata service and not of the API. The machine must be set up for that.
    #[arg(default = false)]
    pub(super) tags_from_imds: bool,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: Ec2Attributes,
}

impl Ec2 {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_expressions("tags", &self.tags)
    }
}

/// Elastic Kubernetes Service of AWS: the environment of a pod, the API of Kubernetes and the metadata service.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Eks {
    /// The environment variable that has the node's name. The node says the account and the machine where the metadata
    /// service cannot be reached.
    #[arg(default = "K8S_NODE_NAME")]
    pub(super) node_from_env_var: String,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: EksAttributes,
}

/// How to reach the API of Kubernetes.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct KubernetesApi {
    /// How to show who asks: `none`, `serviceAccount`, `kubeConfig` or `tls`.
    #[arg(default = "none")]
    pub(super) auth_type: String,
    /// The context of the `kubectl` configuration. Empty means its current one.
    #[arg(optional)]
    pub(super) context: String,
}

impl KubernetesApi {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        if !matches!(&*self.auth_type, "none" | "serviceAccount" | "kubeConfig" | "tls") {
            errors.push(&["auth_type"], format!("invalid auth_type {:?}", self.auth_type));
        }
        errors.into_result()
    }
}

/// A cluster that kubeadm made: the API of Kubernetes.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Kubeadm {
    #[flatten]
    pub(super) api: KubernetesApi,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: KubeadmAttributes,
}

/// The node of a Kubernetes cluster: the API of Kubernetes.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct KubernetesNode {
    #[flatten]
    pub(super) api: KubernetesApi,
    /// The environment variable that has the node's name.
    #[arg(default = "K8S_NODE_NAME")]
    pub(super) node_from_env_var: String,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: KubernetesNodeAttributes,
}

/// OpenStack Nova: its metadata service.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Nova {
    /// Regular expressions for the names of metadata that become attributes, `openstack.nova.meta.<name>`.
    #[arg(default = [])]
    pub(super) labels: Vec<String>,
    /// Whether it is a failure that the metadata service cannot be reached.
    #[arg(default = false)]
    pub(super) fail_on_missing_metadata: bool,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: NovaAttributes,
}

impl Nova {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_expressions("labels", &self.labels)
    }
}

/// OpenShift: its API.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct OpenShift {
    /// Where the API is. Empty means where the environment of a pod says.
    #[arg(optional)]
    pub(super) address: String,
    /// The token to show. Empty means that of the pod's service account.
    #[arg(optional)]
    pub(super) token: Secret,
    /// TLS towards the API. Without certificate authorities those of the pod's service account are trusted.
    #[block(default)]
    pub(super) tls: TlsClientArguments,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: OpenShiftAttributes,
}

/// The machine itself.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct System {
    /// Where the name of the machine comes from, in this order until there is one: `dns`, its full name; `os`, what the
    /// system says; `cname`, its canonical name in the DNS; `lookup`, the name of its address in the DNS.
    #[arg(default = ["dns", "os"])]
    pub(super) hostname_sources: Vec<String>,
    /// Which attributes are set.
    #[block(default)]
    pub(super) resource_attributes: SystemAttributes,
}

impl System {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        for source in &self.hostname_sources {
            if !matches!(&**source, "os" | "dns" | "cname" | "lookup") {
                errors.push(&["hostname_sources"], format!("invalid hostname source: {source}"));
            }
        }
        errors.into_result()
    }
}

attributes! { AkamaiAttributes:
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
}
attributes! { AksAttributes:
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    off k8s_cluster_name "k8s.cluster.name",
}
attributes! { AlibabaEcsAttributes:
    on cloud_account_id "cloud.account.id",
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_image_id "host.image.id",
    on host_name "host.name",
    on host_type "host.type",
}
attributes! { AzureAttributes:
    on azure_resourcegroup_name "azure.resourcegroup.name",
    on azure_vm_name "azure.vm.name",
    on azure_vm_scaleset_name "azure.vm.scaleset.name",
    on azure_vm_size "azure.vm.size",
    on cloud_account_id "cloud.account.id",
    off cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
}
attributes! { ConsulAttributes:
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
}
attributes! { DigitalOceanAttributes:
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
}
attributes! { DockerAttributes:
    on host_name "host.name",
    on os_type "os.type",
}
attributes! { Ec2Attributes:
    on cloud_account_id "cloud.account.id",
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_image_id "host.image.id",
    on host_name "host.name",
    on host_type "host.type",
}
attributes! { EcsAttributes:
    on aws_ecs_cluster_arn "aws.ecs.cluster.arn",
    on aws_ecs_launchtype "aws.ecs.launchtype",
    on aws_ecs_task_arn "aws.ecs.task.arn",
    on aws_ecs_task_family "aws.ecs.task.family",
    on aws_ecs_task_id "aws.ecs.task.id",
    on aws_ecs_task_revision "aws.ecs.task.revision",
    on aws_log_group_arns "aws.log.group.arns",
    on aws_log_group_names "aws.log.group.names",
    on aws_log_stream_arns "aws.log.stream.arns",
    on aws_log_stream_names "aws.log.stream.names",
    on cloud_account_id "cloud.account.id",
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
}
attributes! { EksAttributes:
    off cloud_account_id "cloud.account.id",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    off k8s_cluster_name "k8s.cluster.name",
}
attributes! { ElasticBeanstalkAttributes:
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on deployment_environment "deployment.environment",
    on service_instance_id "service.instance.id",
    on service_version "service.version",
}
attributes! { GcpAttributes:
    on cloud_account_id "cloud.account.id",
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    off faas_id "faas.id",
    on faas_instance "faas.instance",
    on faas_name "faas.name",
    on faas_version "faas.version",
    on gcp_cloud_run_job_execution "gcp.cloud_run.job.execution",
    on gcp_cloud_run_job_task_index "gcp.cloud_run.job.task_index",
    on gcp_gce_instance_group_manager_name "gcp.gce.instance.group_manager.name",
    on gcp_gce_instance_group_manager_region "gcp.gce.instance.group_manager.region",
    on gcp_gce_instance_group_manager_zone "gcp.gce.instance.group_manager.zone",
    off gcp_gce_instance_hostname "gcp.gce.instance.hostname",
    off gcp_gce_instance_name "gcp.gce.instance.name",
    on host_id "host.id",
    on host_name "host.name",
    on host_type "host.type",
    on k8s_cluster_name "k8s.cluster.name",
}
attributes! { HerokuAttributes:
    on cloud_provider "cloud.provider",
    on heroku_app_id "heroku.app.id",
    on heroku_dyno_id "heroku.dyno.id",
    on heroku_release_commit "heroku.release.commit",
    on heroku_release_creation_timestamp "heroku.release.creation_timestamp",
    on service_instance_id "service.instance.id",
    on service_name "service.name",
    on service_version "service.version",
}
attributes! { HetznerAttributes:
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
}
attributes! { KubeadmAttributes:
    on k8s_cluster_name "k8s.cluster.name",
    on k8s_cluster_uid "k8s.cluster.uid",
}
attributes! { KubernetesNodeAttributes:
    on k8s_node_name "k8s.node.name",
    on k8s_node_uid "k8s.node.uid",
}
attributes! { LambdaAttributes:
    on aws_log_group_names "aws.log.group.names",
    on aws_log_stream_names "aws.log.stream.names",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on faas_instance "faas.instance",
    on faas_max_memory "faas.max_memory",
    on faas_name "faas.name",
    on faas_version "faas.version",
}
attributes! { NovaAttributes:
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
    on host_type "host.type",
}
attributes! { OpenShiftAttributes:
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on k8s_cluster_name "k8s.cluster.name",
}
attributes! { OracleCloudAttributes:
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
    on host_type "host.type",
    on k8s_cluster_name "k8s.cluster.name",
    on oracle_cloud_realm "oracle_cloud.realm",
}
attributes! { ScalewayAttributes:
    on cloud_account_id "cloud.account.id",
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_image_id "host.image.id",
    on host_image_name "host.image.name",
    on host_name "host.name",
    on host_type "host.type",
}
attributes! { SystemAttributes:
    off host_arch "host.arch",
    off host_cpu_cache_l2_size "host.cpu.cache.l2.size",
    off host_cpu_family "host.cpu.family",
    off host_cpu_model_id "host.cpu.model.id",
    off host_cpu_model_name "host.cpu.model.name",
    off host_cpu_stepping "host.cpu.stepping",
    off host_cpu_vendor_id "host.cpu.vendor.id",
    off host_id "host.id",
    off host_interface "host.interface",
    off host_ip "host.ip",
    off host_mac "host.mac",
    on host_name "host.name",
    off os_build_id "os.build.id",
    off os_description "os.description",
    off os_name "os.name",
    on os_type "os.type",
    off os_version "os.version",
}
attributes! { TencentCvmAttributes:
    on cloud_account_id "cloud.account.id",
    on cloud_availability_zone "cloud.availability_zone",
    on cloud_platform "cloud.platform",
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_image_id "host.image.id",
    on host_name "host.name",
    on host_type "host.type",
}
attributes! { UpCloudAttributes:
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
}
attributes! { VultrAttributes:
    on cloud_provider "cloud.provider",
    on cloud_region "cloud.region",
    on host_id "host.id",
    on host_name "host.name",
}
