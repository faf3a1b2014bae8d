//! What a user can say of each detector.

use std::any::Any;
use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::time::Duration;

use corten_config::Arguments;
use corten_config::arguments::{BlockField, CheckErrors, Record, RecordOps, Slots, boxed};
use corten_config::schema::{BlockAbsent, Field, FieldKind, Schema, Stability};
use corten_net::Secret;
use corten_signal::regex::GoRegex;

use crate::tls::TlsClientArguments;

/// Whether an attribute is set.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct Toggle {
    /// Whether it is set.
    enabled: bool,
}

/// The attributes of a detector that are set.
pub(super) type Wanted = BTreeSet<&'static str>;

/// Which attributes a detector can set, and those that it sets where the user does not say.
pub(super) trait Table: 'static {
    const NAME: &'static str;
    const ATTRIBUTES: &'static [Field];
}

/// A block for each attribute that a detector can set, in the order of its table.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Switches<T: Table>(Vec<Toggle>, PhantomData<T>);

impl<T: Table> Switches<T> {
    /// The attributes that are set.
    pub(super) fn wanted(&self) -> Wanted {
        let attributes = T::ATTRIBUTES.iter().zip(&self.0);
        attributes.filter(|(_, toggle)| toggle.enabled).map(|(attribute, _)| attribute.name).collect()
    }
}

impl<T: Table> Record for Switches<T> {
    const SCHEMA: &'static Schema = &Schema {
        name: T::NAME,
        doc: "The attributes that the detector can set.",
        fields: T::ATTRIBUTES,
        ops: RecordOps::of::<Self>(),
    };

    fn assemble(slots: &mut Slots) -> Option<Self> {
        let toggles = (0..T::ATTRIBUTES.len()).map(|at| slots.take(at)).collect::<Option<_>>()?;
        Some(Switches(toggles, PhantomData))
    }

    fn field(&self, index: usize) -> Option<&dyn Any> {
        self.0.get(index).map(|toggle| toggle as &dyn Any)
    }

    fn check_rules(&self) -> Result<(), CheckErrors> {
        Ok(())
    }

    fn check_build_rules(&self, _: Stability) -> Result<(), CheckErrors> {
        Ok(())
    }
}

impl<T: Table> Arguments for Switches<T> {}

/// The block of an attribute.
const fn attribute(name: &'static str, enabled: bool) -> Field {
    Field {
        name,
        doc: "The attribute of this name.",
        stability: Stability::GenerallyAvailable,
        deprecated: None,
        secret_if: None,
        kind: FieldKind::Block {
            block: <Toggle as BlockField>::BLOCK,
            absent: BlockAbsent::Computed {
                text: None,
                make: if enabled { || boxed(Toggle { enabled: true }) } else { || boxed(Toggle { enabled: false }) },
            },
            defaults: &[],
        },
    }
}

/// Tables of attributes. One that is `off` is not set unless the user says so.
macro_rules! attributes {
    ($($table:ident { $($name:literal $(: $off:ident)?),+ $(,)? })+) => {
        $(
            #[derive(Clone, Debug, PartialEq)]
            pub(super) enum $table {}

            impl Table for $table {
                const NAME: &'static str = concat!(module_path!(), "::", stringify!($table));
                const ATTRIBUTES: &'static [Field] = &[$(attribute($name, attributes!(@ $($off)?))),+];
            }
        )+
    };
    (@) => { true };
    (@ off) => { false };
}

attributes! {
    Host { "cloud.provider", "cloud.region", "host.id", "host.name" }
    Machine {
        "cloud.account.id", "cloud.availability_zone", "cloud.platform", "cloud.provider", "cloud.region", "host.id",
        "host.image.id", "host.name", "host.type",
    }
    AksAttributes { "cloud.platform", "cloud.provider", "k8s.cluster.name": off }
    AzureAttributes {
        "azure.resourcegroup.name", "azure.vm.name", "azure.vm.scaleset.name", "azure.vm.size", "cloud.account.id",
        "cloud.availability_zone": off, "cloud.platform", "cloud.provider", "cloud.region", "host.id", "host.name",
    }
    ConsulAttributes { "cloud.region", "host.id", "host.name" }
    DockerAttributes { "host.name", "os.type" }
    EcsAttributes {
        "aws.ecs.cluster.arn", "aws.ecs.launchtype", "aws.ecs.task.arn", "aws.ecs.task.family", "aws.ecs.task.id",
        "aws.ecs.task.revision", "aws.log.group.arns", "aws.log.group.names", "aws.log.stream.arns",
        "aws.log.stream.names", "cloud.account.id", "cloud.availability_zone", "cloud.platform", "cloud.provider",
        "cloud.region",
    }
    EksAttributes { "cloud.account.id": off, "cloud.platform", "cloud.provider", "k8s.cluster.name": off }
    ElasticBeanstalkAttributes {
        "cloud.platform", "cloud.provider", "deployment.environment", "service.instance.id", "service.version",
    }
    GcpAttributes {
        "cloud.account.id", "cloud.availability_zone", "cloud.platform", "cloud.provider", "cloud.region",
        "faas.id": off, "faas.instance", "faas.name", "faas.version", "gcp.cloud_run.job.execution",
        "gcp.cloud_run.job.task_index", "gcp.gce.instance.group_manager.name",
        "gcp.gce.instance.group_manager.region", "gcp.gce.instance.group_manager.zone",
        "gcp.gce.instance.hostname": off, "gcp.gce.instance.name": off, "host.id", "host.name", "host.type",
        "k8s.cluster.name",
    }
    HerokuAttributes {
        "cloud.provider", "heroku.app.id", "heroku.dyno.id", "heroku.release.commit",
        "heroku.release.creation_timestamp", "service.instance.id", "service.name", "service.version",
    }
    HetznerAttributes { "cloud.availability_zone", "cloud.provider", "cloud.region", "host.id", "host.name" }
    KubeadmAttributes { "k8s.cluster.name", "k8s.cluster.uid" }
    KubernetesNodeAttributes { "k8s.node.name", "k8s.node.uid" }
    LambdaAttributes {
        "aws.log.group.names", "aws.log.stream.names", "cloud.platform", "cloud.provider", "cloud.region",
        "faas.instance", "faas.max_memory", "faas.name", "faas.version",
    }
    NovaAttributes {
        "cloud.availability_zone", "cloud.platform", "cloud.provider", "cloud.region", "host.id", "host.name",
        "host.type",
    }
    OpenShiftAttributes { "cloud.platform", "cloud.provider", "cloud.region", "k8s.cluster.name" }
    OracleCloudAttributes {
        "cloud.availability_zone", "cloud.platform", "cloud.provider", "cloud.region", "host.id", "host.name",
        "host.type", "k8s.cluster.name", "oracle_cloud.realm",
    }
    ScalewayAttributes {
        "cloud.account.id", "cloud.availability_zone", "cloud.platform", "cloud.provider", "cloud.region", "host.id",
        "host.image.id", "host.image.name", "host.name", "host.type",
    }
    SystemAttributes {
        "host.arch": off, "host.cpu.cache.l2.size": off, "host.cpu.family": off, "host.cpu.model.id": off,
        "host.cpu.model.name": off, "host.cpu.stepping": off, "host.cpu.vendor.id": off, "host.id": off,
        "host.interface": off, "host.ip": off, "host.mac": off, "host.name", "os.build.id": off,
        "os.description": off, "os.name": off, "os.type", "os.version": off,
    }
}

/// What the user can say of detectors: what stands in the braces, and which attributes of the table are set.
macro_rules! detectors {
    ($($(#[$doc:meta])* $name:ident: $table:ident { $($fields:tt)* })+) => {
        $(
            $(#[$doc])*
            #[derive(Arguments, Clone, Debug, PartialEq)]
            pub(super) struct $name {
                $($fields)*
                /// Which attributes are set.
                #[block(default)]
                pub(super) resource_attributes: Switches<$table>,
            }
        )+
    };
}

detectors! {
    /// Akamai (Linode): its metadata service.
    Akamai: Host {}
    /// Azure Kubernetes Service: the environment of a pod and the metadata service of Azure.
    Aks: AksAttributes {}
    /// Elastic Compute Service of Alibaba Cloud: its metadata service.
    AlibabaEcs: Machine {
        /// Whether it is a failure that the metadata service cannot be reached.
        #[arg(default = false)]
        pub(super) fail_on_missing_metadata: bool,
    }
    /// Virtual machines of Azure: their metadata service.
    Azure: AzureAttributes {
        /// Regular expressions for the names of tags that become attributes, `azure.tag.<name>`.
        #[arg(default = [])]
        pub(super) tags: Vec<String>,
    }
    /// A Consul agent.
    Consul: ConsulAttributes {
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
    }
    /// DigitalOcean: its metadata service.
    DigitalOcean: Host {}
    /// The Docker daemon, over its socket.
    Docker: DockerAttributes {}
    /// Elastic Compute Cloud of AWS: its metadata service.
    Ec2: Machine {
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
    }
    /// Elastic Container Service of AWS: the endpoint of the task.
    Ecs: EcsAttributes {}
    /// Elastic Kubernetes Service of AWS: the environment of a pod, the API of Kubernetes and the metadata service.
    Eks: EksAttributes {
        /// The environment variable that has the node's name. The node says the account and the machine where the metadata
        /// service cannot be reached.
        #[arg(default = "K8S_NODE_NAME")]
        pub(super) node_from_env_var: String,
    }
    /// Elastic Beanstalk of AWS: the file of the X-Ray daemon.
    ElasticBeanstalk: ElasticBeanstalkAttributes {}
    /// Google Cloud: its metadata service and the environment.
    Gcp: GcpAttributes {}
    /// Heroku: the environment of a dyno.
    Heroku: HerokuAttributes {}
    /// Hetzner Cloud: its metadata service.
    Hetzner: HetznerAttributes {}
    /// A cluster that kubeadm made: the API of Kubernetes.
    Kubeadm: KubeadmAttributes {
        #[flatten]
        pub(super) api: KubernetesApi,
    }
    /// The node of a Kubernetes cluster: the API of Kubernetes.
    KubernetesNode: KubernetesNodeAttributes {
        #[flatten]
        pub(super) api: KubernetesApi,
        /// The environment variable that has the node's name.
        #[arg(default = "K8S_NODE_NAME")]
        pub(super) node_from_env_var: String,
    }
    /// Lambda of AWS: the environment of a function.
    Lambda: LambdaAttributes {}
    /// OpenStack Nova: its metadata service.
    Nova: NovaAttributes {
        /// Regular expressions for the names of metadata that become attributes, `openstack.nova.meta.<name>`.
        #[arg(default = [])]
        pub(super) labels: Vec<String>,
        /// Whether it is a failure that the metadata service cannot be reached.
        #[arg(default = false)]
        pub(super) fail_on_missing_metadata: bool,
    }
    /// OpenShift: its API.
    OpenShift: OpenShiftAttributes {
        /// Where the API is. Empty means where the environment of a pod says.
        #[arg(optional)]
        pub(super) address: String,
        /// The token to show. Empty means that of the pod's service account.
        #[arg(optional)]
        pub(super) token: Secret,
        /// TLS towards the API. Without certificate authorities those of the pod's service account are trusted.
        #[block(default)]
        pub(super) tls: TlsClientArguments,
    }
    /// Oracle Cloud: its metadata service.
    OracleCloud: OracleCloudAttributes {}
    /// Scaleway: its metadata service.
    Scaleway: ScalewayAttributes {}
    /// The machine itself.
    System: SystemAttributes {
        /// Where the name of the machine comes from, in this order until there is one: `dns`, its full name; `os`, what the
        /// system says; `cname`, its canonical name in the DNS; `lookup`, the name of its address in the DNS.
        #[arg(default = ["dns", "os"])]
        pub(super) hostname_sources: Vec<String>,
    }
    /// Cloud Virtual Machine of Tencent Cloud: its metadata service.
    TencentCvm: Machine {
        /// Whether it is a failure that the metadata service cannot be reached.
        #[arg(default = false)]
        pub(super) fail_on_missing_metadata: bool,
    }
    /// UpCloud: its metadata service.
    UpCloud: Host {
        /// Whether it is a failure that the metadata service cannot be reached.
        #[arg(default = false)]
        pub(super) fail_on_missing_metadata: bool,
    }
    /// Vultr: its metadata service.
    Vultr: Host {
        /// Whether it is a failure that the metadata service cannot be reached.
        #[arg(default = false)]
        pub(super) fail_on_missing_metadata: bool,
    }
}

/// OneAgent of Dynatrace: the file with what it knows of the host.
#[derive(Arguments, Clone, Debug, Default, PartialEq)]
pub(super) struct Dynatrace {}

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

/// Regular expressions for names.
pub(super) fn expressions(of: &[String]) -> Result<Vec<GoRegex>, String> {
    of.iter().map(|text| GoRegex::new(text).map_err(|error| error.to_string())).collect()
}

fn check_expressions(argument: &'static str, of: &[String]) -> Result<(), CheckErrors> {
    expressions(of).map(drop).map_err(|error| CheckErrors::of(&[argument], error))
}

impl Azure {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_expressions("tags", &self.tags)
    }
}

impl Ec2 {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_expressions("tags", &self.tags)
    }
}

impl Nova {
    fn check_build(&self, _: Stability) -> Result<(), CheckErrors> {
        check_expressions("labels", &self.labels)
    }
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
