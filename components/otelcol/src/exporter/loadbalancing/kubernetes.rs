//! The endpoints of a service of Kubernetes.

use std::collections::{BTreeMap, BTreeSet};
use std::pin::pin;
use std::time::Duration;

use corten_component::Stop;
use corten_config::Arguments;
use corten_net::ClientOptions;
use corten_net::kubernetes::{Api, ApiConfig, Change, Collection, Follower, Surroundings};
use serde_json::Value;
use tokio::time::sleep;

use super::resolver::{ENDPOINTS_MAX, Keeper, or};

/// What the metrics call them.
const NAME: &str = "k8s";
/// After how long it is tried again to make exporters that could not be made: the endpoints may not change for days.
const AGAIN: Duration = Duration::from_secs(5);
/// The most slices of endpoints that a service may have.
const SLICES_MAX: usize = 1000;

/// Servers that are the endpoints of a service of Kubernetes. The API is that of the cluster that this runs in, with the
/// service account of the pod, or the one that `KUBECONFIG` names. It must be allowed to list and watch `endpointslices`.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub(super) struct KubernetesResolver {
    /// The service, `name`, `name.namespace` or `name.namespace.svc.cluster.domain`. Without a namespace it is that of the
    /// pod that this runs in, or else `default`.
    service: String,
    /// The ports of the servers: each address is one server for each. Without any it is 4317.
    #[arg(default = [4317])]
    ports: Vec<i32>,
    /// How long the API is asked to go on telling of changes before it is asked anew; 0 means a minute.
    #[arg(default = "1m")]
    timeout: Duration,
    /// Whether servers are named by their host names, `host.service.namespace`, which the pods of a stateful set have, and
    /// not by their addresses.
    #[arg(default = false)]
    return_hostnames: bool,
}

/// A service and its namespace; none if it is not said.
type Named<'a> = (&'a str, Option<&'a str>);

impl KubernetesResolver {
    /// The service and its namespace.
    pub(super) fn named(&self) -> Result<Named<'_>, String> {
        let service = &*self.service;
        let parts: Vec<&str> = service.split('.').collect();
        let (name, namespace) = match parts[..] {
            [] | ["", ..] => return Err("no service specified to resolve the backends".to_owned()),
            [name] | [name, ""] => (name, None),
            [_, "", ..] => return Err(invalid(format!("namespace segment missing in {service:?}"))),
            [name, namespace, ..] => (name, Some(namespace)),
        };
        match parts[..] {
            [_, _, svc, ..] if svc != "svc" => {
                Err(invalid(format!("expected third DNS label to be 'svc' in {service:?}")))
            }
            [_, _, _] => Err(invalid(format!("missing cluster domain in {service:?}"))),
            _ => Ok((name, namespace)),
        }
    }
}

fn invalid(why: String) -> String {
    format!("invalid Kubernetes service FQDN: {why}")
}

/// Follows the slices of endpoints that a service has.
#[derive(Clone)]
pub(super) struct Slices {
    pub(super) settings: KubernetesResolver,
    pub(super) surroundings: Surroundings,
    pub(super) options: ClientOptions,
}

impl Slices {
    /// Keeps the endpoints to those of the service, until it is to stop.
    ///
    /// # Errors
    /// It is not known where the API is.
    pub(super) async fn run(self, keeper: &Keeper, mut stop: Stop) -> Result<(), String> {
        let (name, namespace) = self.settings.named()?;
        let namespace = match namespace {
            Some(namespace) => namespace.to_owned(),
            None => self.own_namespace(keeper).await,
        };
        let mut known = Known {
            slices: BTreeMap::new(),
            suffix: if self.settings.return_hostnames { format!(".{name}.{namespace}") } else { String::new() },
            ports: self.settings.ports.iter().map(ToString::to_string).collect(),
        };
        let mut follower = self.follower(name, &namespace).await.map_err(|error| error.to_string())?;
        let mut are_whole = true;
        loop {
            let change = {
                let mut next = pin!(follower.next());
                loop {
                    tokio::select! {
                        change = &mut next => break change,
                        () = stop.wait() => return Ok(()),
                        () = sleep(AGAIN), if !are_whole => {
                            are_whole = keeper.keep(NAME, known.endpoints(), &stop).await;
                        }
                    }
                }
            };
            match change {
                Ok(change) => {
                    let is_all = matches!(change, Change::All(_));
                    let Changed { slices, nameless } = known.take(change);
                    for _ in 0..nameless {
                        keeper.failed(NAME, "EndpointSlice object missing hostnames").await;
                    }
                    keeper.resolved(NAME, slices).await;
                    if slices > 0 || is_all {
                        are_whole = keeper.keep(NAME, known.endpoints(), &stop).await;
                    }
                }
                Err(error) => keeper.failed(NAME, &error.to_string()).await,
            }
        }
    }

    async fn own_namespace(&self, keeper: &Keeper) -> String {
        match self.surroundings.namespace().await {
            Ok(namespace) => namespace,
            Err(error) => {
                let message =
                    "could not determine the namespace for this collector, will use \"default\" as the namespace";
                keeper.logger.warn(message, &[("error", error.to_string().into())]);
                "default".to_owned()
            }
        }
    }

    async fn follower(&self, name: &str, namespace: &str) -> Result<Follower<Slice>, corten_net::Error> {
        let config = ApiConfig::find(&self.surroundings).await?;
        let api = Api::new(config, self.options.clone()).await?;
        let collection = Collection {
            label_selector: format!("kubernetes.io/service-name={name}"),
            watch: or(self.settings.timeout, Duration::from_secs(60)),
            objects_max: SLICES_MAX,
            ..Collection::new("/apis/discovery.k8s.io/v1", namespace, "endpointslices")
        };
        let by_name = self.settings.return_hostnames;
        Ok(api.follow(collection, move |object| Slice::of(object, by_name)))
    }
}

/// What is kept of a slice.
#[derive(Clone, Debug, Default, PartialEq)]
struct Slice {
    /// The addresses or names in it. Of more than can be used the first are there, which are those that would be used.
    hosts: BTreeSet<String>,
    /// Whether some have no name yet.
    is_nameless: bool,
}

impl Slice {
    fn of(object: &Value, by_name: bool) -> Self {
        fn list<'a>(of: &'a Value, name: &str) -> &'a [Value] {
            of.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
        }
        let mut slice = Slice::default();
        for endpoint in list(object, "endpoints") {
            let addresses = list(endpoint, "addresses");
            if by_name && !addresses.is_empty() {
                match endpoint.get("hostname").and_then(Value::as_str).filter(|name| !name.is_empty()) {
                    Some(name) => slice.add(name),
                    None => slice.is_nameless = true,
                }
            } else {
                addresses.iter().filter_map(Value::as_str).for_each(|address| slice.add(address));
            }
        }
        slice
    }

    fn add(&mut self, host: &str) {
        self.hosts.insert(host.to_owned());
        if self.hosts.len() > ENDPOINTS_MAX {
            self.hosts.pop_last();
        }
    }
}

/// All that is known of a service.
struct Known {
    slices: BTreeMap<String, Slice>,
    /// What follows the names of hosts.
    suffix: String,
    ports: Vec<String>,
}

/// How many slices have changed, and in how many of them some have no name.
#[derive(Debug, Default, PartialEq)]
struct Changed {
    slices: u64,
    nameless: u64,
}

impl Known {
    fn take(&mut self, change: Change<Slice>) -> Changed {
        let mut changed = Changed::default();
        match change {
            Change::All(all) => {
                let mut before = std::mem::take(&mut self.slices);
                for (name, slice) in all {
                    changed.count(before.remove(&name).as_ref(), &slice);
                    self.slices.insert(name, slice);
                }
                before.values().for_each(|gone| changed.count_gone(gone));
            }
            Change::Is(name, slice) => {
                let before = self.slices.get(&name);
                if before.is_some() || self.slices.len() < SLICES_MAX {
                    changed.count(before, &slice);
                    self.slices.insert(name, slice);
                }
            }
            Change::Gone(name) => {
                if let Some(gone) = self.slices.remove(&name) {
                    changed.count_gone(&gone);
                }
            }
        }
        changed
    }

    /// The endpoints, each once for each port.
    fn endpoints(&self) -> Vec<String> {
        let hosts: BTreeSet<&String> = self.slices.values().flat_map(|slice| &slice.hosts).collect();
        let mut endpoints = Vec::new();
        // No more hosts are of use than there may be endpoints.
        for host in hosts.into_iter().take(ENDPOINTS_MAX + 1) {
            let host = format!("{host}{}", self.suffix);
            let in_brackets = if host.contains(':') { format!("[{host}]") } else { host.clone() };
            match &self.ports[..] {
                [] => endpoints.push(host),
                ports => endpoints.extend(ports.iter().map(|port| format!("{in_brackets}:{port}"))),
            }
        }
        endpoints
    }
}

impl Changed {
    fn count(&mut self, before: Option<&Slice>, slice: &Slice) {
        self.nameless += u64::from(slice.is_nameless);
        let is_new = before.map_or(!slice.hosts.is_empty(), |before| before.hosts != slice.hosts);
        self.slices += u64::from(is_new);
    }

    fn count_gone(&mut self, gone: &Slice) {
        self.nameless += u64::from(gone.is_nameless);
        self.slices += u64::from(!gone.hosts.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::sync::Arc;

    use corten_component::Context;
    use corten_component::task::Stopper;
    use corten_testkit::kubernetes::Cluster;
    use corten_testkit::{World, host, until};
    use serde_json::json;
    use tokio::sync::Mutex;
    use tokio::task::JoinHandle;

    use super::super::endpoints::{Endpoints, LoadMetrics, Maker, Router};
    use super::super::keys::Key;
    use super::super::resolver::{Source, Watcher};
    use super::super::tests::{DIRECT, ID, arguments, fixed, ids, traces, wanted};
    use super::super::{LoadBalancingExporter, TYPE};
    use super::*;
    use crate::exporter::otlp;
    use crate::exporter::queue::QueueArguments;
    use crate::exporter::retry::RetryArguments;
    use crate::exporter::sending::{Owner, Pushes, Sending};
    use crate::exporter::testing::GrpcServer;

    const PATH: &str = "/apis/discovery.k8s.io/v1/namespaces/tracing/endpointslices";
    const NAMESPACE: &str = "var/run/secrets/kubernetes.io/serviceaccount/namespace";

    fn resolver(service: &str, more: &str) -> KubernetesResolver {
        let block = format!("kubernetes {{\nservice = {service:?}\n{more}\n}}");
        let body = fixed(&[], "", "").replace("static {\n hostnames = []\n }", &block);
        arguments(&body).resolver.kubernetes.unwrap()
    }

    fn slice(name: &str, endpoints: &[(&[&str], &str)]) -> Value {
        let endpoint = |(addresses, hostname): &(&[&str], &str)| match *hostname {
            "" => json!({"addresses": addresses, "conditions": {"ready": false}}),
            hostname => json!({"addresses": addresses, "hostname": hostname}),
        };
        let endpoints: Vec<Value> = endpoints.iter().map(endpoint).collect();
        let labels = json!({"kubernetes.io/service-name": "tempo"});
        json!({"metadata": {"namespace": "tracing", "name": name, "labels": labels}, "endpoints": endpoints})
    }

    /// An exporter that follows a service, and what it works with.
    struct Following {
        world: World,
        _cx: Context<LoadBalancingExporter>,
        endpoints: Arc<Mutex<Endpoints>>,
        sending: Sending,
        stopper: Stopper,
        running: JoinHandle<Result<(), String>>,
    }

    impl Following {
        /// Follows as a process that `KUBECONFIG` says where the cluster is.
        async fn start(cluster: &Cluster, settings: KubernetesResolver) -> Self {
            Self::start_with(cluster, settings, |_| fixed(&["a".to_owned()], DIRECT, "")).await
        }

        /// With other arguments, which may name files.
        async fn start_with(
            cluster: &Cluster,
            settings: KubernetesResolver,
            body: impl FnOnce(&World) -> String,
        ) -> Self {
            let world = host(ID);
            world.write("kube/config", cluster.kubeconfig("account"));
            world.write(NAMESPACE, "tracing");
            let env = |name: &str| (name == "KUBECONFIG").then(|| "/kube/config".to_owned());
            let surroundings = Surroundings::new(Arc::new(env), world.path(""));
            let cx = world.context::<LoadBalancingExporter>();
            let metrics = LoadMetrics::new(cx.metrics());
            let endpoints = Endpoints::new(metrics.clone());
            let routes = endpoints.routes();
            let endpoints = Arc::new(Mutex::new(endpoints));
            let maker = Maker {
                owner: Owner::of(&cx, otlp::TYPE),
                services: Arc::clone(cx.services()),
                otlp: arguments(&body(&world)).protocol.otlp,
                names_peers: false,
            };
            let router = Router {
                key: Key::TraceId,
                timeout: Duration::from_secs(20),
                routes,
                metrics,
                logger: cx.logger().clone(),
                reads_context: false,
            };
            let off = QueueArguments { enabled: false, ..QueueArguments::default() };
            let never = RetryArguments { enabled: false, ..RetryArguments::default() };
            let pushes = Pushes::all(&Arc::new(router));
            let sending = Sending::prepare(Owner::of(&cx, TYPE), pushes, &off, &never, None).await.unwrap();
            let sending = Sending::commit(None, sending);
            let (maker, logger) = (Arc::new(maker), cx.logger().clone());
            let slices = Slices { settings, surroundings, options: ClientOptions::default() };
            let source = Source::Slices(Box::new(slices));
            let watcher = Watcher { source, keeper: Keeper { maker, endpoints: Arc::clone(&endpoints), logger } };
            let (stopper, stop) = Stop::pair();
            let running = tokio::spawn(watcher.run(stop));
            Following { world, _cx: cx, endpoints, sending, stopper, running }
        }

        async fn awaits(&self, endpoints: &[&str]) {
            let known = || self.endpoints.try_lock().is_ok_and(|known| known.found() == endpoints);
            until(&format!("they are {endpoints:?}"), known).await;
        }

        /// Resolutions that succeeded and failed, endpoints, and how often those have changed.
        fn counted(&self) -> [f64; 4] {
            let text = self.world.metrics().text();
            let of = |name: &str, label: &str| {
                let line = text
                    .lines()
                    .find(|line| line.starts_with(name) && line.contains("resolver=\"k8s\"") && line.contains(label));
                line.map_or(0.0, |line| line.rsplit(' ').next().unwrap().parse().unwrap())
            };
            [
                of("otelcol_loadbalancer_num_resolutions_total", "success=\"true\""),
                of("otelcol_loadbalancer_num_resolutions_total", "success=\"false\""),
                of("otelcol_loadbalancer_num_backends", ""),
                of("otelcol_loadbalancer_num_backend_updates_total", ""),
            ]
        }

        async fn end(self) {
            self.stopper.stop();
            self.running.await.unwrap().unwrap();
            self.sending.drain().await;
            self.endpoints.lock().await.drain().await;
        }
    }

    #[tokio::test]
    async fn endpoints_are_those_of_the_slices_of_the_service() {
        let cluster = Cluster::start().await;
        cluster.put(PATH, slice("tempo-a", &[(&["10.0.0.2"], ""), (&["10.0.0.1", "2001:db8::1"], "")]));
        let mut other = slice("other", &[(&["10.9.9.9"], "")]);
        other["metadata"]["labels"]["kubernetes.io/service-name"] = json!("other");
        cluster.put(PATH, other);
        let following = Following::start(&cluster, resolver("tempo.tracing", "ports = [1, 2]")).await;
        let first = ["10.0.0.1:1", "10.0.0.1:2", "10.0.0.2:1", "10.0.0.2:2", "[2001:db8::1]:1", "[2001:db8::1]:2"];
        following.awaits(&first).await;
        assert_eq!(following.counted(), [1.0, 0.0, 6.0, 1.0]);
        // An address that another slice has, too, stays when one of them is gone.
        cluster.put(PATH, slice("tempo-b", &[(&["10.0.0.1"], ""), (&["10.0.0.3"], "")]));
        following.awaits(&[&first[..4], &["10.0.0.3:1", "10.0.0.3:2"], &first[4..]].concat()).await;
        cluster.delete(PATH, "tempo-a");
        following.awaits(&["10.0.0.1:1", "10.0.0.1:2", "10.0.0.3:1", "10.0.0.3:2"]).await;
        cluster.put(PATH, slice("tempo-b", &[]));
        following.awaits(&[]).await;
        assert_eq!(following.counted(), [4.0, 0.0, 0.0, 4.0]);
        // Without a namespace it is that of the pod; without ports it is the usual one.
        cluster.put(PATH, slice("tempo-b", &[(&["10.0.0.1"], "")]));
        let own = Following::start(&cluster, resolver("tempo", "ports = []\ntimeout = \"90s\"")).await;
        own.awaits(&["10.0.0.1"]).await;
        let asked = cluster.asked();
        assert!(asked.iter().all(|asked| asked.authorization == "Bearer account" && asked.target.starts_with(PATH)));
        let last = &asked.last().unwrap().target;
        let query = "?labelSelector=kubernetes.io%2Fservice-name%3Dtempo&timeoutSeconds=90&";
        assert!(last.starts_with(&format!("{PATH}{query}")), "{last}");
        assert!(asked[0].target.contains("&timeoutSeconds=60&"), "{asked:?}");
        following.end().await;
        own.end().await;
    }

    #[tokio::test]
    async fn hosts_with_names_are_endpoints_by_their_names() {
        let cluster = Cluster::start().await;
        cluster.put(PATH, slice("a", &[(&["10.0.0.1"], "tempo-0"), (&["10.0.0.2", "10.0.0.3"], "tempo-1")]));
        let following = Following::start(&cluster, resolver("tempo.tracing", "return_hostnames = true")).await;
        following.awaits(&["tempo-0.tempo.tracing:4317", "tempo-1.tempo.tracing:4317"]).await;
        // One that has no name yet keeps nobody from coming and going.
        cluster.put(PATH, slice("a", &[(&["10.0.0.4"], ""), (&["10.0.0.2"], "tempo-1"), (&["10.0.0.5"], "tempo-2")]));
        following.awaits(&["tempo-1.tempo.tracing:4317", "tempo-2.tempo.tracing:4317"]).await;
        assert_eq!(following.counted(), [2.0, 1.0, 2.0, 2.0]);
        assert!(following.world.logs().contains("EndpointSlice object missing hostnames"));
        following.end().await;
    }

    #[tokio::test]
    async fn endpoints_stay_while_the_api_is_away_and_follow_when_it_is_back() {
        let cluster = Cluster::start().await;
        cluster.refuse(Some((403, "{\"message\":\"endpointslices is forbidden\"}")));
        cluster.put(PATH, slice("a", &[(&["10.0.0.1"], "")]));
        let following = Following::start(&cluster, resolver("tempo.tracing", "ports = []")).await;
        until("it is refused", || following.world.logs().contains("403 Forbidden: endpointslices is forbidden")).await;
        cluster.refuse(None);
        following.awaits(&["10.0.0.1"]).await;
        until("they are watched", || cluster.watches() == 1).await;
        cluster.die();
        cluster.put(PATH, slice("b", &[(&["10.0.0.2"], "")]));
        let failed = following.counted()[1];
        until("it is told", || following.counted()[1] > failed).await;
        following.awaits(&["10.0.0.1"]).await;
        cluster.come_back().await;
        following.awaits(&["10.0.0.1", "10.0.0.2"]).await;
        // What has happened meanwhile is forgotten: all is listed again, and what is not there is gone.
        until("they are watched", || cluster.watches() == 1).await;
        cluster.die();
        cluster.delete(PATH, "a");
        cluster.put(PATH, slice("c", &[(&["10.0.0.3"], "")]));
        cluster.compact();
        cluster.come_back().await;
        following.awaits(&["10.0.0.2", "10.0.0.3"]).await;
        following.end().await;
    }

    #[tokio::test]
    async fn what_is_no_event_is_passed_over() {
        let cluster = Cluster::start().await;
        cluster.put(PATH, slice("a", &[(&["10.0.0.1"], "")]));
        let following = Following::start(&cluster, resolver("tempo.tracing", "ports = []")).await;
        following.awaits(&["10.0.0.1"]).await;
        until("they are watched", || cluster.watches() == 1).await;
        cluster.say("{\"type\":\"ADDED\",\"object\":\u{7}}\n");
        until("it is told", || following.world.logs().contains("watch cannot be read")).await;
        following.awaits(&["10.0.0.1"]).await;
        cluster.put(PATH, slice("b", &[(&["10.0.0.2"], "")]));
        following.awaits(&["10.0.0.1", "10.0.0.2"]).await;
        following.end().await;
    }

    /// Servers on the same port of several addresses.
    async fn servers(count: u8) -> (u16, Vec<GrpcServer>) {
        'again: loop {
            let mut servers = vec![GrpcServer::start().await];
            let port = servers[0].address.port();
            for host in 2..=count {
                let address = SocketAddr::from(([127, 0, 0, host], port));
                if tokio::net::TcpListener::bind(address).await.is_err() {
                    continue 'again;
                }
                servers.push(GrpcServer::at(&address.to_string()).await);
            }
            return (port, servers);
        }
    }

    #[tokio::test]
    async fn telemetry_goes_to_the_servers_that_there_are() {
        let (port, servers) = servers(3).await;
        let cluster = Cluster::start().await;
        cluster.put(PATH, slice("a", &[(&["127.0.0.1"], ""), (&["127.0.0.2"], "")]));
        let following = Following::start(&cluster, resolver("tempo.tracing", &format!("ports = [{port}]"))).await;
        let names: Vec<String> = servers.iter().map(|server| server.address.to_string()).collect();
        let traced = following.sending.stages().traces.unwrap();
        following.awaits(&[&names[0], &names[1]]).await;
        until("they are used", || following.endpoints.try_lock().is_ok()).await;
        traced.consume(traces(0..40)).await.unwrap();
        for (server, name) in servers.iter().zip(&names[..2]) {
            assert_eq!(ids(server), wanted(&names[..2], name, 0..40));
        }
        cluster.put(PATH, slice("a", &[(&["127.0.0.3"], ""), (&["127.0.0.2"], "")]));
        following.awaits(&[&names[1], &names[2]]).await;
        let had: Vec<usize> = servers.iter().map(|server| ids(server).len()).collect();
        traced.consume(traces(40..80)).await.unwrap();
        for at in [1, 2] {
            assert_eq!(ids(&servers[at])[had[at]..], wanted(&names[1..], &names[at], 40..80));
        }
        assert_eq!(ids(&servers[0]).len(), had[0]);
        following.end().await;
    }

    #[tokio::test]
    async fn an_exporter_that_could_not_be_made_is_made_when_that_is_possible() {
        let cluster = Cluster::start().await;
        cluster.put(PATH, slice("a", &[(&["10.0.0.1"], "")]));
        let body = |world: &World| {
            let authority = format!("ca_file = {:?}", world.path("ca.pem"));
            fixed(&["a".to_owned()], DIRECT, "").replace("insecure = true", &authority)
        };
        let following = Following::start_with(&cluster, resolver("tempo.tracing", ""), body).await;
        let said = || following.world.logs().contains("failed to create new exporter for endpoint");
        until("it is said", said).await;
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["tempo".to_owned()]).unwrap().self_signed(&key).unwrap();
        following.world.write("ca.pem", certificate.pem());
        let endpoints = ["10.0.0.1:4317".to_owned()];
        let is_made = || following.endpoints.try_lock().is_ok_and(|known| known.are(&endpoints));
        until("it is made", is_made).await;
        following.end().await;
    }

    #[tokio::test]
    async fn without_a_cluster_it_is_said() {
        let surroundings = Surroundings::new(Arc::new(|_| None), "/nowhere".into());
        let slices =
            Slices { settings: resolver("tempo.tracing", ""), surroundings, options: ClientOptions::default() };
        let error = slices.follower("tempo", "tracing").await.unwrap_err().to_string();
        assert_eq!(
            error,
            "unable to load in-cluster config: unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and \
             KUBERNETES_SERVICE_PORT must be defined; unable to get kubeconfig: neither KUBECONFIG nor HOME is set"
        );
    }

    #[test]
    fn more_than_can_be_used_is_not_kept() {
        let addresses: Vec<String> = (0..3000).map(|n| format!("10.0.{}.{}", n / 256, n % 256)).collect();
        let object = json!({"endpoints": [{"addresses": addresses}]});
        let slice = Slice::of(&object, false);
        assert_eq!(slice.hosts.len(), ENDPOINTS_MAX);
        let mut known = Known { slices: BTreeMap::new(), suffix: String::new(), ports: vec!["1".to_owned()] };
        for n in 0..SLICES_MAX + 5 {
            let is_new = known.slices.len() < SLICES_MAX;
            assert_eq!(known.take(Change::Is(n.to_string(), slice.clone())).slices, u64::from(is_new));
        }
        assert_eq!(known.slices.len(), SLICES_MAX);
        assert_eq!(known.endpoints().len(), ENDPOINTS_MAX);
        assert_eq!(known.take(Change::All(Vec::new())), Changed { slices: SLICES_MAX as u64, nameless: 0 });
        for odd in [json!({}), json!({"endpoints": 3}), json!({"endpoints": [null, {"addresses": [null, 3]}]})] {
            assert_eq!(Slice::of(&odd, false), Slice::default());
            assert!(Slice::of(&odd, true).hosts.is_empty());
        }
    }
}
