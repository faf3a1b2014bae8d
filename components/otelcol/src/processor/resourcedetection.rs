//! `otelcol.processor.resourcedetection`.

mod arguments;
mod aws;
mod azure;
mod clouds;
mod google;
mod host;
mod kubernetes;
mod names;
mod outside;
mod platform;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use corten_component::{Component, Context, Error, Health, HealthBoard, HealthState, Logger, Stop, Task};
use corten_config::Arguments;
use corten_config::arguments::CheckErrors;
use corten_config::encode::Item;
use corten_otlp::{Data, OtlpSignal, Record, Value};
use corten_signal::flow::BoxFuture;
use corten_signal::{Consume, ConsumeError, Fanout};
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::outside::{Attributes, Found, Miss, Outside};
use crate::flow::{DebugMetrics, Inlets, Input, MakeStage, Output};
use crate::process::ProcessMetrics;
use crate::shown::{attr, block, show};

/// Finds out where the program runs, and adds that to the resources of what passes.
///
/// Detection begins at the start. What arrives meanwhile waits for it, as long as `timeout` at most. A detector that
/// fails is the component's health and is tried again; what the others found is added nevertheless.
#[derive(Arguments, Clone, Debug, PartialEq)]
pub struct ResourceDetectionArguments {
    /// The detectors to ask. Of attributes that several find, that of the first one counts.
    #[arg(default = ["env"])]
    detectors: Vec<String>,
    /// Whether what is detected replaces what resources have already.
    #[arg(default = true)]
    r#override: bool,
    /// How long detection may take.
    #[arg(default = "5s")]
    timeout: Duration,
    /// Whether it is a failure that the metadata service of a detector cannot be reached; otherwise that detector finds
    /// nothing.
    #[arg(default = false)]
    fail_on_missing_metadata: bool,
    /// The detector `akamai`.
    #[block(default)]
    akamai: arguments::Akamai,
    /// The detector `aks`.
    #[block(default)]
    aks: arguments::Aks,
    /// The detector `alibaba_ecs`.
    #[block(default)]
    alibaba_ecs: arguments::AlibabaEcs,
    /// The detector `azure`.
    #[block(default)]
    azure: arguments::Azure,
    /// The detector `consul`.
    #[block(default)]
    consul: arguments::Consul,
    /// The detector `digitalocean`.
    #[block(default)]
    digitalocean: arguments::DigitalOcean,
    /// The detector `docker`.
    #[block(default)]
    docker: arguments::Docker,
    /// The detector `dynatrace`.
    #[block(default)]
    dynatrace: arguments::Dynatrace,
    /// The detector `ec2`.
    #[block(default)]
    ec2: arguments::Ec2,
    /// The detector `ecs`.
    #[block(default)]
    ecs: arguments::Ecs,
    /// The detector `eks`.
    #[block(default)]
    eks: arguments::Eks,
    /// The detector `elasticbeanstalk`.
    #[block(default)]
    elasticbeanstalk: arguments::ElasticBeanstalk,
    /// The detector `gcp`.
    #[block(default)]
    gcp: arguments::Gcp,
    /// The detector `heroku`.
    #[block(default)]
    heroku: arguments::Heroku,
    /// The detector `hetzner`.
    #[block(default)]
    hetzner: arguments::Hetzner,
    /// The detector `kubeadm`.
    #[block(default)]
    kubeadm: arguments::Kubeadm,
    /// The detector `kubernetes_node`.
    #[block(default)]
    kubernetes_node: arguments::KubernetesNode,
    /// The detector `lambda`.
    #[block(default)]
    lambda: arguments::Lambda,
    /// The detector `nova`.
    #[block(default)]
    nova: arguments::Nova,
    /// The detector `openshift`.
    #[block(default)]
    openshift: arguments::OpenShift,
    /// The detector `oraclecloud`.
    #[block(default)]
    oraclecloud: arguments::OracleCloud,
    /// The detector `scaleway`.
    #[block(default)]
    scaleway: arguments::Scaleway,
    /// The detector `system`.
    #[block(default)]
    system: arguments::System,
    /// The detector `tencent_cvm`.
    #[block(default)]
    tencent_cvm: arguments::TencentCvm,
    /// The detector `upcloud`.
    #[block(default)]
    upcloud: arguments::UpCloud,
    /// The detector `vultr`.
    #[block(default)]
    vultr: arguments::Vultr,
    /// Where to send what passes.
    #[block]
    output: Output,
    /// Which metrics of its own the component has.
    #[block(optional)]
    debug_metrics: DebugMetrics,
}

/// The detectors that there are.
const DETECTORS: &[&str] = &[
    "akamai",
    "aks",
    "alibaba_ecs",
    "azure",
    "consul",
    "digitalocean",
    "docker",
    "dynatrace",
    "ec2",
    "ecs",
    "eks",
    "elasticbeanstalk",
    "env",
    "gcp",
    "heroku",
    "hetzner",
    "kubeadm",
    "kubernetes_node",
    "lambda",
    "nova",
    "openshift",
    "oraclecloud",
    "scaleway",
    "system",
    "tencent_cvm",
    "upcloud",
    "vultr",
];

/// Those that ask nobody who may be missing. All others have found nothing where the one that they ask does not answer: the
/// address of a metadata service that there is not may be one that never answers.
const ALWAYS_THERE: &[&str] = &["dynatrace", "ecs", "env", "system"];

/// The version of the conventions that the names of attributes come from.
const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.40.0";

impl ResourceDetectionArguments {
    fn check(&self) -> Result<(), CheckErrors> {
        let mut errors = CheckErrors::new();
        errors.require(!self.detectors.is_empty(), &["detectors"], "at least one detector must be specified");
        if let Some(unknown) = self.detectors.iter().find(|name| !DETECTORS.contains(&&***name)) {
            errors.push(&["detectors"], format!("invalid detector: {unknown}"));
        }
        errors.into_result()
    }

    /// What has an influence on detection.
    fn of_detection(&self) -> Self {
        ResourceDetectionArguments { output: Output::default(), r#override: true, ..self.clone() }
    }

    /// Asks a detector once.
    async fn detect(&self, detector: &str, outside: &Outside) -> Result<Attributes, Miss> {
        match detector {
            "akamai" => clouds::akamai(&self.akamai, outside).await,
            "aks" => azure::aks(&self.aks, outside).await,
            "alibaba_ecs" => clouds::alibaba_ecs(&self.alibaba_ecs, outside).await,
            "azure" => azure::azure(&self.azure, outside).await,
            "consul" => host::consul(&self.consul, outside).await,
            "digitalocean" => clouds::digitalocean(&self.digitalocean, outside).await,
            "docker" => host::docker(&self.docker, outside).await,
            "dynatrace" => host::dynatrace(outside).await,
            "ec2" => aws::ec2(&self.ec2, outside).await,
            "ecs" => aws::ecs(&self.ecs, outside).await,
            "eks" => aws::eks(&self.eks, outside).await,
            "elasticbeanstalk" => aws::elasticbeanstalk(&self.elasticbeanstalk, outside).await,
            "env" => host::env(outside),
            "gcp" => google::gcp(&self.gcp, outside).await,
            "heroku" => Ok(host::heroku(&self.heroku, outside)),
            "hetzner" => clouds::hetzner(&self.hetzner, outside).await,
            "kubeadm" => kubernetes::kubeadm(&self.kubeadm, outside).await,
            "kubernetes_node" => kubernetes::kubernetes_node(&self.kubernetes_node, outside).await,
            "lambda" => aws::lambda(&self.lambda, outside),
            "nova" => clouds::nova(&self.nova, outside).await,
            "openshift" => kubernetes::openshift(&self.openshift, outside).await,
            "oraclecloud" => clouds::oraclecloud(&self.oraclecloud, outside).await,
            "scaleway" => clouds::scaleway(&self.scaleway, outside).await,
            "system" => host::system(&self.system, outside).await,
            "tencent_cvm" => clouds::tencent_cvm(&self.tencent_cvm, outside).await,
            "upcloud" => clouds::upcloud(&self.upcloud, outside).await,
            "vultr" => clouds::vultr(&self.vultr, outside).await,
            other => Err(Miss::Failed(format!("invalid detector: {other}"))),
        }
    }

    /// Whether a detector that does not reach its metadata service has failed.
    fn insists(&self, detector: &str) -> bool {
        self.fail_on_missing_metadata
            || match detector {
                "alibaba_ecs" => self.alibaba_ecs.fail_on_missing_metadata,
                "ec2" => self.ec2.fail_on_missing_metadata,
                "nova" => self.nova.fail_on_missing_metadata,
                "tencent_cvm" => self.tencent_cvm.fail_on_missing_metadata,
                "upcloud" => self.upcloud.fail_on_missing_metadata,
                "vultr" => self.vultr.fail_on_missing_metadata,
                _ => false,
            }
    }
}

/// What was detected.
#[derive(Clone, Debug, Default, PartialEq)]
struct Detected {
    attributes: Vec<(String, Found)>,
    schema_url: &'static str,
}

/// The component.
pub struct ResourceDetectionProcessor {
    inlets: Arc<Inlets>,
    arguments: ResourceDetectionArguments,
    detected: watch::Receiver<Option<Arc<Detected>>>,
    task: Task,
}

/// What is to be put in place.
pub struct Prepared {
    inlets: Arc<Inlets>,
    arguments: ResourceDetectionArguments,
    outside: Outside,
}

impl Component for ResourceDetectionProcessor {
    const NAME: &'static str = "otelcol.processor.resourcedetection";
    type Arguments = ResourceDetectionArguments;
    type Exports = Input;
    type Prepared = Prepared;

    async fn prepare(
        arguments: ResourceDetectionArguments,
        cx: &Context<Self>,
        current: Option<&Self>,
    ) -> Result<(Prepared, Input), Error> {
        let outside = Outside::new(&cx.services().user_agent).await?;
        let inlets = current.map_or_else(|| Inlets::of(cx.ledger()), |current| Arc::clone(&current.inlets));
        let exports = inlets.exports();
        Ok((Prepared { inlets, arguments, outside }, exports))
    }

    fn commit(current: Option<Self>, prepared: Prepared, cx: &Context<Self>) -> Self {
        let Prepared { inlets, arguments, outside } = prepared;
        let known = current.filter(|current| current.arguments.of_detection() == arguments.of_detection());
        let (detected, task) = match known {
            Some(current) => (current.detected, current.task),
            None => detect(arguments.clone(), outside, cx),
        };
        let shown = detected.clone();
        show(cx, move || shown.borrow().as_ref().map(|detected| detected.tell()).unwrap_or_default());
        let make = Make { detected: detected.clone(), replaces: arguments.r#override, cx };
        inlets.attach(arguments.output.stages(cx, &make));
        ResourceDetectionProcessor { inlets, arguments, detected, task }
    }

    async fn drain(self, _: &Context<Self>) {
        self.inlets.close();
        self.task.stop().await;
    }
}

/// How long after a failure everything is detected anew.
const RETRY_EVERY: Duration = Duration::from_secs(60);

/// Begins detection. It goes on until every detector has succeeded.
fn detect<C: Component>(
    arguments: ResourceDetectionArguments,
    outside: Outside,
    cx: &Context<C>,
) -> (watch::Receiver<Option<Arc<Detected>>>, Task) {
    let (sender, receiver) = watch::channel(None);
    let work = Arc::new(Detection {
        arguments,
        outside,
        sender,
        logger: cx.logger().clone(),
        health: Arc::clone(cx.health()),
    });
    (receiver, cx.spawn("detect", move |stop| Arc::clone(&work).run(stop)))
}

struct Detection {
    arguments: ResourceDetectionArguments,
    outside: Outside,
    sender: watch::Sender<Option<Arc<Detected>>>,
    logger: Logger,
    health: Arc<HealthBoard>,
}

impl Detection {
    async fn run(self: Arc<Self>, mut stop: Stop) -> Result<(), String> {
        let mut known = vec![None; self.arguments.detectors.len()];
        loop {
            let outcome = tokio::select! {
                () = stop.wait() => return Ok(()),
                outcome = self.detect(&mut known) => outcome,
            };
            let (detected, errors) = outcome;
            self.sender.send_replace(Some(Arc::new(detected)));
            if errors.is_empty() {
                self.health.set_reported(Some(Health::now(HealthState::Healthy, "started scheduled components")));
                return Ok(());
            }
            let text = format!("failed to create components: {}", errors.join("; "));
            self.health.set_reported(Some(Health::now(HealthState::Unhealthy, text)));
            if !stop.sleep(RETRY_EVERY).await {
                return Ok(());
            }
        }
    }

    /// What all detectors find, and why some failed. Those that have found something already are not asked again: one that
    /// fails now must not take away what it said of the machine before.
    async fn detect(self: &Arc<Self>, known: &mut [Option<Attributes>]) -> (Detected, Vec<String>) {
        self.logger.info("began detecting resource information", &[]);
        let deadline = Instant::now() + self.arguments.timeout;
        let mut asked = Vec::new();
        for (at, detector) in self.arguments.detectors.iter().enumerate().filter(|(at, _)| known[*at].is_none()) {
            let (detection, detector) = (Arc::clone(self), detector.clone());
            asked.push((at, tokio::spawn(async move { detection.ask(&detector, deadline).await })));
        }
        let (mut detected, mut errors) = (Detected::default(), Vec::new());
        for (at, found) in asked {
            match found.await.unwrap_or_else(|error| Err(error.to_string())) {
                Ok(found) => known[at] = Some(found),
                Err(error) => errors.push(error),
            }
        }
        for found in known.iter().flatten() {
            if found.is_conventional {
                detected.schema_url = SCHEMA_URL;
            }
            for (name, value) in &found.found {
                if !detected.attributes.iter().any(|(known, _)| known == name) {
                    detected.attributes.push((name.clone(), value.clone()));
                }
            }
        }
        let shown: Vec<String> = detected.attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
        self.logger.info("detected resource information", &[("resource", shown.join(" ").into())]);
        (detected, errors)
    }

    /// What is found where a detector's metadata service is not: nothing.
    fn elsewhere(&self, detector: &str, why: String) -> Attributes {
        let fields = [("detector", detector.into()), ("err", why.into())];
        self.logger.debug("the metadata service cannot be reached", &fields);
        Attributes::default()
    }

    /// Asks a detector until it succeeds or there is no time left.
    async fn ask(&self, detector: &str, deadline: Instant) -> Result<Attributes, String> {
        let mut wait = Duration::from_secs(1);
        let mut error = None;
        loop {
            let failure = match timeout_at(deadline, self.arguments.detect(detector, &self.outside)).await {
                Ok(Ok(found)) if found.lacking.is_empty() || !self.arguments.insists(detector) => {
                    for (why, is_warning) in
                        found.warnings.iter().map(|why| (why, true)).chain(found.lacking.iter().map(|why| (why, false)))
                    {
                        let fields = [("detector", detector.into()), ("err", why.into())];
                        let text = "some attributes cannot be detected";
                        if is_warning { self.logger.warn(text, &fields) } else { self.logger.debug(text, &fields) }
                    }
                    return Ok(found);
                }
                Ok(Ok(found)) => found.lacking.join("\n"),
                Ok(Err(Miss::Elsewhere(why))) if !self.arguments.insists(detector) => {
                    return Ok(self.elsewhere(detector, why));
                }
                Ok(Err(Miss::Elsewhere(why) | Miss::Failed(why))) => why,
                Err(_) => {
                    let late = format!("{detector}: context deadline exceeded");
                    if error.is_none() && !ALWAYS_THERE.contains(&detector) && !self.arguments.insists(detector) {
                        return Ok(self.elsewhere(detector, late));
                    }
                    return Err(error.unwrap_or(late));
                }
            };
            let fields = [("detector", detector.into()), ("err", (&failure).into())];
            self.logger.warn("failed to detect resource", &fields);
            let failure = error.get_or_insert(failure);
            if Instant::now() + wait >= deadline {
                return Err(failure.clone());
            }
            tokio::time::sleep(wait).await;
            wait *= 2;
        }
    }
}

struct Make<'a> {
    detected: watch::Receiver<Option<Arc<Detected>>>,
    replaces: bool,
    cx: &'a Context<ResourceDetectionProcessor>,
}

impl MakeStage for Make<'_> {
    fn stage<S: OtlpSignal>(&self, forward: Fanout<S>) -> Arc<dyn Consume<S>> {
        let metrics = ProcessMetrics::new::<_, S>(self.cx, "resourcedetection");
        Arc::new(Stage { detected: self.detected.clone(), replaces: self.replaces, forward, metrics })
    }
}

/// A signal's part of the component.
struct Stage<S: OtlpSignal> {
    detected: watch::Receiver<Option<Arc<Detected>>>,
    replaces: bool,
    forward: Fanout<S>,
    metrics: ProcessMetrics,
}

impl<S: OtlpSignal> Consume<S> for Stage<S> {
    fn consume(&self, mut batch: S::Batch) -> BoxFuture<'_, Result<(), ConsumeError>> {
        Box::pin(async move {
            let mut detected = self.detected.clone();
            let detected = match detected.wait_for(Option::is_some).await {
                Ok(detected) => detected.clone().unwrap_or_default(),
                Err(_) => {
                    let reason = "the component has ended".to_owned();
                    return Err(ConsumeError::Retry { after: None, reason });
                }
            };
            let begun = std::time::Instant::now();
            let incoming = batch.items();
            if !detected.attributes.is_empty() || !detected.schema_url.is_empty() {
                let outcome: Result<(), Infallible> = batch.edit(|data| Ok(detected.add(data, self.replaces)));
                // It cannot fail.
                let Ok(()) = outcome;
            }
            self.metrics.observe(incoming, batch.items(), begun);
            self.forward.consume(batch).await
        })
    }
}

impl Detected {
    /// A block for each attribute.
    fn tell(&self) -> Vec<Item> {
        let one = |(name, value): &(String, Found)| {
            block("attribute", vec![attr("name", name.as_str()), attr("value", value.to_string())])
        };
        self.attributes.iter().map(one).collect()
    }

    /// Adds what was detected to each resource.
    fn add<R: Record>(&self, data: &mut Data<R>, replaces: bool) -> corten_otlp::Edit {
        let Data { arena, resources } = data;
        for of in resources {
            for (name, found) in &self.attributes {
                let map = &mut of.resource.attributes;
                if !replaces && arena.get(*map, name.as_bytes()).is_some() {
                    continue;
                }
                let value = match found {
                    Found::Text(text) => arena.own_str(text),
                    Found::Int(number) => Value::Int(*number),
                    Found::List(list) => {
                        let values: Vec<Value> = list.iter().map(|text| arena.own_str(text)).collect();
                        Value::List(arena.list(&values))
                    }
                };
                arena.put(map, name.as_bytes(), value);
            }
            if of.schema_url.is_empty() && !self.schema_url.is_empty() {
                of.schema_url = arena.own(self.schema_url.as_bytes());
            }
        }
        corten_otlp::Edit::Changed
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use corten_component::Definition;
    use corten_otlp::{Batch, LogRecord, Metric, Span};
    use corten_testkit::{OtlpSink, Server, Unit, World, answer, host, otlp};

    use super::*;

    /// What a recorded metadata service says: by method and path, with a header that it insists on.
    type Recorded = &'static [(&'static str, &'static str, &'static str)];

    async fn server(recorded: Recorded) -> Server {
        Server::start(move |seen| {
            let line = format!("{} {}", seen.method, seen.target);
            let known = recorded.iter().find(|(known, ..)| *known == line);
            match known {
                Some((_, header, body)) => {
                    let is_shown = header.split_once(": ").is_none_or(|(name, value)| seen.header(name) == value);
                    if is_shown { answer(200, &[], *body) } else { answer(401, &[], "") }
                }
                None => answer(404, &[], ""),
            }
        })
        .await
    }

    /// What a detector finds in a world, `name=value` in order, or why it does not.
    async fn found(
        detector: &str,
        settings: &str,
        env: &[(&str, &str)],
        root: &Path,
        recorded: Recorded,
    ) -> Result<Vec<String>, Miss> {
        let found = attributes(detector, settings, env, root, recorded).await?;
        assert_eq!(found.lacking, [""; 0], "{detector}");
        Ok(shown(&found))
    }

    fn shown(found: &Attributes) -> Vec<String> {
        found.found.iter().map(|(name, value)| format!("{name}={value}")).collect()
    }

    async fn attributes(
        detector: &str,
        settings: &str,
        env: &[(&str, &str)],
        root: &Path,
        recorded: Recorded,
    ) -> Result<Attributes, Miss> {
        let server = server(recorded).await;
        let at = |text: &str| text.replace("ORIGIN", &server.url(""));
        let host = server.address().ip().to_string();
        let port = server.address().port().to_string();
        let env: BTreeMap<String, String> = env
            .iter()
            .map(|(name, value)| ((*name).to_owned(), at(value).replace("HOST", &host).replace("PORT", &port)))
            .collect();
        let lookup = move |name: &str| env.get(name).cloned();
        let outside = Outside::with(lookup, root.to_owned(), Some(server.url("")), "test").await.unwrap();
        let arguments = arguments(&at(settings)).await;
        arguments.detect(detector, &outside).await
    }

    /// Arguments of a text, which are kept by the component that has them.
    async fn arguments(settings: &str) -> ResourceDetectionArguments {
        struct Keeper;
        impl Component for Keeper {
            const NAME: &'static str = "otelcol.processor.resourcedetection";
            type Arguments = ResourceDetectionArguments;
            type Exports = Input;
            type Prepared = ();

            async fn prepare(
                arguments: ResourceDetectionArguments,
                cx: &Context<Self>,
                _: Option<&Self>,
            ) -> Result<((), Input), Error> {
                KEPT.with(|kept| kept.replace(Some(arguments)));
                Ok(((), Inlets::of(cx.ledger()).exports()))
            }

            fn commit(_: Option<Self>, (): (), _: &Context<Self>) -> Self {
                Keeper
            }
        }
        thread_local! {
            static KEPT: std::cell::RefCell<Option<ResourceDetectionArguments>> = const { std::cell::RefCell::new(None) };
        }
        let body = format!("{settings}\noutput {{ }}");
        Unit::start(host("otelcol.processor.resourcedetection.a"), &Definition::of::<Keeper>(), &body).await.unwrap();
        KEPT.with(|kept| kept.take()).unwrap()
    }

    /// Checks what a detector finds at a recorded metadata service.
    async fn finds(detector: &str, settings: &str, env: &[(&str, &str)], recorded: Recorded, want: &[&str]) {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(found(detector, settings, env, dir.path(), recorded).await.unwrap(), want, "{detector}");
    }

    #[tokio::test]
    async fn clouds_with_one_document() {
        finds(
            "digitalocean",
            "",
            &[],
            &[("GET /metadata/v1.json", "", r#"{"droplet_id":2756294,"hostname":"h","region":"nyc3"}"#)],
            &["cloud.provider=digitalocean", "host.id=2756294", "host.name=h", "cloud.region=nyc3"],
        )
        .await;
        finds(
            "upcloud",
            "",
            &[],
            &[(
                "GET /metadata/v1.json",
                "",
                r#"{"cloud_name":"upcloud","instance_id":"00-1","hostname":"h","region":"us-chi1"}"#,
            )],
            &["cloud.provider=upcloud", "cloud.region=us-chi1", "host.id=00-1", "host.name=h"],
        )
        .await;
        finds(
            "vultr",
            "",
            &[],
            &[("GET /v1.json", "", r#"{"hostname":"h","instance-v2-id":"a-b","region":{"regioncode":"EWR"}}"#)],
            &["cloud.provider=vultr", "cloud.region=ewr", "host.id=a-b", "host.name=h"],
        )
        .await;
        finds(
            "vultr",
            "",
            &[],
            &[(
                "GET /v1.json",
                "",
                r#"{"hostname":"h","instanceid":"7","instance-v2-id":"","region":{"regioncode":"EWR"}}"#,
            )],
            &["cloud.provider=vultr", "cloud.region=ewr", "host.id=7", "host.name=h"],
        )
        .await;
        finds(
            "scaleway",
            "",
            &[],
            &[(
                "GET /conf?format=json",
                "",
                r#"{"id":"i","name":"h","commercial_type":"DEV1-S","organization":"o","location":{"zone_id":"fr-par-1"},
                   "image":{"id":"im","name":"Ubuntu"}}"#,
            )],
            &[
                "cloud.account.id=o",
                "cloud.availability_zone=fr-par-1",
                "cloud.provider=scaleway_cloud",
                "cloud.platform=scaleway_cloud_compute",
                "cloud.region=fr-par",
                "host.id=i",
                "host.image.id=im",
                "host.image.name=Ubuntu",
                "host.name=h",
                "host.type=DEV1-S",
            ],
        )
        .await;
        finds(
            "oraclecloud",
            "",
            &[],
            &[
                ("HEAD /opc/v2/instance/", "authorization: Bearer Oracle", ""),
                (
                    "GET /opc/v2/instance/",
                    "authorization: Bearer Oracle",
                    r#"{"id":"ocid1","displayName":"h","shape":"VM.1","canonicalRegionName":"us-ashburn-1",
                       "availabilityDomain":"AD-1","metadata":{"oke-cluster-display-name":"c","realm":"oc1"},
                       "regionInfo":{"realmKey":"other"}}"#,
                ),
            ],
            &[
                "cloud.provider=oracle_cloud",
                "cloud.platform=oracle_cloud_oke",
                "cloud.region=us-ashburn-1",
                "cloud.availability_zone=AD-1",
                "host.id=ocid1",
                "host.name=h",
                "host.type=VM.1",
                "k8s.cluster.name=c",
                "oracle_cloud.realm=oc1",
            ],
        )
        .await;
        finds(
            "nova",
            "nova {\nlabels = [\"^r\"]\n}",
            &[],
            &[
                (
                    "GET /openstack/latest/meta_data.json",
                    "",
                    r#"{"uuid":"u","name":"n","hostname":"h","availability_zone":"z","meta":{"role":"web","x":"y"}}"#,
                ),
                ("GET /latest/meta-data/instance-type", "", "m1.small\n"),
            ],
            &[
                "host.type=m1.small",
                "cloud.provider=openstack",
                "cloud.platform=openstack_nova",
                "cloud.availability_zone=z",
                "host.id=u",
                "host.name=h",
                "openstack.nova.meta.role=web",
            ],
        )
        .await;
    }

    #[tokio::test]
    async fn clouds_with_a_path_for_each_fact() {
        finds(
            "hetzner",
            "",
            &[],
            &[
                ("GET /hetzner/v1/metadata/instance-id", "", "7"),
                ("GET /hetzner/v1/metadata/hostname", "", "h"),
                ("GET /hetzner/v1/metadata/availability-zone", "", "fsn1-dc8"),
                ("GET /hetzner/v1/metadata/region", "", "eu-central"),
            ],
            &[
                "cloud.provider=hetzner",
                "host.id=7",
                "host.name=h",
                "cloud.region=eu-central",
                "cloud.availability_zone=fsn1-dc8",
            ],
        )
        .await;
        finds(
            "akamai",
            "",
            &[],
            &[
                ("PUT /v1/token", "metadata-token-expiry-seconds: 3600", "[\"t\"]"),
                ("GET /v1/instance", "metadata-token: t", r#"{"id":12,"label":"h","region":"us-ord"}"#),
            ],
            &["cloud.provider=akamai_cloud", "cloud.region=us-ord", "host.id=12", "host.name=h"],
        )
        .await;
        const TOKEN: &str = "x-aliyun-ecs-metadata-token: t";
        finds(
            "alibaba_ecs",
            "alibaba_ecs {\nresource_attributes {\nhost.name {\nenabled = false\n}\n}\n}",
            &[],
            &[
                ("PUT /latest/api/token", "x-aliyun-ecs-metadata-token-ttl-seconds: 21600", "t"),
                ("GET /latest/meta-data/owner-account-id", TOKEN, "1"),
                ("GET /latest/meta-data/region-id", TOKEN, "cn-1"),
                ("GET /latest/meta-data/zone-id", TOKEN, "cn-1-a"),
                ("GET /latest/meta-data/instance-id", TOKEN, "i"),
                ("GET /latest/meta-data/hostname", TOKEN, "h"),
                ("GET /latest/meta-data/image-id", TOKEN, "im"),
                ("GET /latest/meta-data/instance/instance-type", TOKEN, "ecs.g6"),
            ],
            &[
                "cloud.provider=alibaba_cloud",
                "cloud.platform=alibaba_cloud_ecs",
                "cloud.account.id=1",
                "cloud.region=cn-1",
                "cloud.availability_zone=cn-1-a",
                "host.id=i",
                "host.image.id=im",
                "host.type=ecs.g6",
            ],
        )
        .await;
        finds(
            "tencent_cvm",
            "",
            &[],
            &[
                ("GET /latest/meta-data/app-id", "", "1"),
                ("GET /latest/meta-data/placement/region", "", "ap-1"),
                ("GET /latest/meta-data/placement/zone", "", "ap-1-2"),
                ("GET /latest/meta-data/instance-id", "", "ins"),
                ("GET /latest/meta-data/instance-name", "", "h"),
                ("GET /latest/meta-data/instance/image-id", "", "img"),
                ("GET /latest/meta-data/instance/instance-type", "", "S5"),
            ],
            &[
                "cloud.provider=tencent_cloud",
                "cloud.platform=tencent_cloud_cvm",
                "cloud.account.id=1",
                "cloud.region=ap-1",
                "cloud.availability_zone=ap-1-2",
                "host.id=ins",
                "host.name=h",
                "host.image.id=img",
                "host.type=S5",
            ],
        )
        .await;
    }

    const IDENTITY: &str = r#"{"accountId":"123","region":"us-west-2","availabilityZone":"us-west-2b","instanceId":"i-0",
        "imageId":"ami-1","instanceType":"t2.micro"}"#;
    const EC2_TOKEN: &str = "x-aws-ec2-metadata-token: t";
    const EC2: Recorded = &[
        ("PUT /latest/api/token", "x-aws-ec2-metadata-token-ttl-seconds: 300", "t"),
        ("GET /latest/meta-data/instance-id", EC2_TOKEN, "i-0"),
        ("GET /latest/dynamic/instance-identity/document", EC2_TOKEN, IDENTITY),
        ("GET /latest/meta-data/hostname", EC2_TOKEN, "ip-10-0-0-1.internal"),
        ("GET /latest/meta-data/tags/instance", EC2_TOKEN, "Name\nteam\nother"),
        ("GET /latest/meta-data/tags/instance/Name", EC2_TOKEN, "web"),
        ("GET /latest/meta-data/tags/instance/team", EC2_TOKEN, "a"),
        (
            "POST /",
            "",
            "<R><tagSet><item><key>Name</key><value>a &amp; b</value></item><item><key>x</key><value/></item></tagSet></R>",
        ),
    ];
    const EC2_FOUND: [&str; 9] = [
        "cloud.provider=aws",
        "cloud.platform=aws_ec2",
        "cloud.region=us-west-2",
        "cloud.account.id=123",
        "cloud.availability_zone=us-west-2b",
        "host.id=i-0",
        "host.image.id=ami-1",
        "host.type=t2.micro",
        "host.name=ip-10-0-0-1.internal",
    ];

    #[tokio::test]
    async fn machines_of_aws() {
        let endpoint = [("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ORIGIN/")];
        finds("ec2", "", &endpoint, EC2, &EC2_FOUND).await;
        let tags = "ec2 {\ntags = [\"^Name$\", \"^te\"]\ntags_from_imds = true\n}";
        let of_tags = [&EC2_FOUND[..], &["ec2.tag.Name=web", "ec2.tag.team=a"]].concat();
        finds("ec2", tags, &endpoint, EC2, &of_tags).await;
        let env =
            [("AWS_ENDPOINT_URL_EC2", "ORIGIN"), ("AWS_ACCESS_KEY_ID", "AKID"), ("AWS_SECRET_ACCESS_KEY", "secret")];
        let of_tags = [&EC2_FOUND[..], &["ec2.tag.Name=a & b"]].concat();
        finds("ec2", "ec2 {\ntags = [\"^Name$\"]\n}", &env, EC2, &of_tags).await;
    }

    #[tokio::test]
    async fn a_machine_elsewhere_is_told_from_a_broken_one() {
        let dir = tempfile::tempdir().unwrap();
        for (detector, settings) in [
            ("ec2", "ec2 {\nmax_attempts = 1\n}"),
            ("ec2", "ec2 {\nmax_attempts = 70\nmax_backoff = \"1ms\"\n}"),
            ("azure", ""),
            ("akamai", ""),
            ("digitalocean", ""),
            ("nova", ""),
            ("scaleway", ""),
            ("tencent_cvm", ""),
            ("alibaba_ecs", ""),
            ("upcloud", ""),
            ("vultr", ""),
            ("consul", "consul {\naddress = \"ORIGIN\"\n}"),
            ("docker", ""),
            ("ecs", ""),
            ("eks", ""),
            ("elasticbeanstalk", ""),
            ("lambda", ""),
        ] {
            let outcome = found(detector, settings, &[], dir.path(), &[]).await;
            assert!(matches!(outcome, Err(Miss::Elsewhere(_))), "{detector}: {outcome:?}");
        }
        let half = &EC2[..2];
        let outcome = found("ec2", "ec2 {\nmax_attempts = 1\n}", &[], dir.path(), half).await;
        assert!(matches!(outcome, Err(Miss::Failed(why)) if why.starts_with("failed getting identity document")));
        // However much the user insists.
        for detector in ["aks", "env", "dynatrace", "gcp", "hetzner", "oraclecloud"] {
            assert_eq!(found(detector, "", &[], dir.path(), &[]).await, Ok(vec![]), "{detector}");
        }
        let nameless: Recorded = &[("GET /openstack/latest/meta_data.json", "", r#"{"uuid":"u","name":"n"}"#)];
        let outcome = found("nova", "", &[], dir.path(), nameless).await;
        assert_eq!(outcome, Err(Miss::Failed("failed getting hostname: hostname not found in metadata".to_owned())));
    }

    #[tokio::test]
    async fn what_is_missing_is_told_from_what_is_there() {
        let dir = tempfile::tempdir().unwrap();
        const TASK: &str = r#"{"Cluster":"c","TaskARN":"x","Family":"f","Revision":"26"}"#;
        for (detector, env, recorded, want, lacking) in [
            (
                "hetzner",
                &[][..],
                &[
                    ("GET /hetzner/v1/metadata/hostname", "", "h"),
                    ("GET /hetzner/v1/metadata/instance-id", "", "x"),
                    ("GET /hetzner/v1/metadata/region", "", "eu"),
                ][..],
                &["cloud.provider=hetzner", "host.name=h", "cloud.region=eu"][..],
                &["strconv.ParseInt: parsing \"x\": invalid syntax", "metadata/availability-zone returned 404"][..],
            ),
            (
                "gcp",
                &[("CLOUD_RUN_WORKER_POOL", "w"), ("CLOUD_RUN_REVISION", "r")],
                &[
                    ("GET /computeMetadata/v1/", "metadata-flavor: Google", "x"),
                    ("GET /computeMetadata/v1/instance/region", "", "projects/1/regions/us-central1"),
                ],
                &[
                    "cloud.provider=gcp",
                    "cloud.platform=gcp_cloud_run",
                    "faas.name=w",
                    "faas.version=r",
                    "cloud.region=us-central1",
                ],
                &["project/project-id returned 404", "instance/id returned 404"],
            ),
            (
                "ecs",
                &[("ECS_CONTAINER_METADATA_URI", "ORIGIN/v3")],
                &[("GET /v3/task", "", TASK)],
                &[
                    "cloud.provider=aws",
                    "cloud.platform=aws_ecs",
                    "aws.ecs.task.arn=x",
                    "aws.ecs.task.family=f",
                    "aws.ecs.task.revision=26",
                    "aws.ecs.cluster.arn=arn:aws:ecs:::cluster/c",
                ],
                &["ecs container metadata unavailable: "],
            ),
            (
                "heroku",
                &[("HEROKU_APP_NAME", "n")],
                &[],
                &["service.name=n"],
                &["heroku metadata unavailable: HEROKU_DYNO_ID and HEROKU_APP_ID env vars not set"],
            ),
        ] {
            let got = attributes(detector, "", env, dir.path(), recorded).await.unwrap();
            assert_eq!(shown(&got), want, "{detector}");
            assert_eq!(got.lacking.len(), lacking.len(), "{detector}: {:?}", got.lacking);
            for (why, part) in got.lacking.iter().zip(lacking) {
                assert!(why.contains(part), "{detector}: {why}");
            }
            assert!(got.is_conventional);
        }
        // Without tags the rest is found.
        let tags = "ec2 {\ntags = [\".*\"]\ntags_from_imds = true\n}";
        let some: Vec<_> =
            EC2.iter().filter(|(line, ..)| !line.ends_with("/other") && !line.ends_with("/team")).copied().collect();
        let got = attributes("ec2", tags, &[], dir.path(), some.leak()).await.unwrap();
        assert_eq!(shown(&got), [&EC2_FOUND[..], &["ec2.tag.Name=web"]].concat());
        assert_eq!(got.warnings.len(), 2, "{:?}", got.warnings);
        assert!(got.lacking.is_empty());
    }

    #[tokio::test]
    async fn tasks_of_aws() {
        const TASK: &str = r#"{"Cluster":"c","TaskARN":"arn:aws:ecs:us-west-2:123:task/c/abc","Family":"f","Revision":"26",
            "AvailabilityZone":"us-west-2a","LaunchType":"FARGATE","Containers":[
            {"DockerId":"own","Type":"NORMAL","KnownStatus":"RUNNING","LogDriver":"awslogs","LogOptions":{"awslogs-group":"x"}},
            {"DockerId":"app","Type":"NORMAL","KnownStatus":"RUNNING","LogDriver":"awslogs",
             "LogOptions":{"awslogs-group":"g","awslogs-region":"us-west-2","awslogs-stream":"s"}},
            {"DockerId":"init","Type":"NORMAL","KnownStatus":"STOPPED","LogDriver":"awslogs",
             "LogOptions":{"awslogs-group":"z"}}]}"#;
        finds(
            "ecs",
            "",
            &[("ECS_CONTAINER_METADATA_URI_V4", "ORIGIN/v4/1")],
            &[("GET /v4/1/task", "", TASK), ("GET /v4/1", "", r#"{"DockerId":"own"}"#)],
            &[
                "cloud.provider=aws",
                "cloud.platform=aws_ecs",
                "aws.ecs.task.arn=arn:aws:ecs:us-west-2:123:task/c/abc",
                "aws.ecs.task.id=abc",
                "aws.ecs.task.family=f",
                "aws.ecs.task.revision=26",
                "cloud.account.id=123",
                "cloud.region=us-west-2",
                "aws.ecs.cluster.arn=arn:aws:ecs:us-west-2:123:cluster/c",
                "cloud.availability_zone=us-west-2a",
                "aws.ecs.launchtype=fargate",
                "aws.log.group.names=[g]",
                "aws.log.group.arns=[arn:aws:logs:us-west-2:123:log-group:g]",
                "aws.log.stream.names=[s]",
                "aws.log.stream.arns=[arn:aws:logs:us-west-2:123:log-group:g:log-stream:s]",
            ],
        )
        .await;
        finds(
            "lambda",
            "",
            &[
                ("AWS_LAMBDA_FUNCTION_NAME", "f"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_LAMBDA_FUNCTION_VERSION", "3"),
                ("AWS_LAMBDA_LOG_STREAM_NAME", "s"),
                ("AWS_LAMBDA_LOG_GROUP_NAME", "g"),
                ("AWS_LAMBDA_FUNCTION_MEMORY_SIZE", "128"),
            ],
            &[],
            &[
                "cloud.provider=aws",
                "cloud.platform=aws_lambda",
                "faas.name=f",
                "cloud.region=us-east-1",
                "faas.version=3",
                "faas.instance=s",
                "faas.max_memory=128",
                "aws.log.group.names=[g]",
                "aws.log.stream.names=[s]",
            ],
        )
        .await;
        let world = host("otelcol.processor.resourcedetection.a");
        world.write(
            "var/elasticbeanstalk/xray/environment.conf",
            r#"{"deployment_id":23,"environment_name":"BETA","version_label":"env-1"}"#,
        );
        let got = found("elasticbeanstalk", "", &[], &world.path(""), &[]).await.unwrap();
        let want = [
            "cloud.provider=aws",
            "cloud.platform=aws_elastic_beanstalk",
            "service.instance.id=23",
            "deployment.environment=BETA",
            "service.version=env-1",
        ];
        assert_eq!(got, want);
    }

    #[tokio::test]
    async fn azure_and_google() {
        const COMPUTE: &str = r#"{"name":"vm","location":"westus","vmId":"id","vmSize":"D2","subscriptionId":"sub",
            "resourceGroupName":"MC_rg_cluster_westus","vmScaleSetName":"set","zone":"1","osProfile":{"computerName":"h"},
            "tagsList":[{"name":"team","value":"a"},{"name":"x","value":"y"}]}"#;
        const AZURE: Recorded =
            &[("GET /metadata/instance/compute?api-version=2020-09-01&format=json", "metadata: true", COMPUTE)];
        finds(
            "azure",
            "azure {\ntags = [\"te.*\"]\nresource_attributes {\ncloud.availability_zone {\nenabled = true\n}\n}\n}",
            &[],
            AZURE,
            &[
                "cloud.provider=azure",
                "cloud.platform=azure.vm",
                "host.name=h",
                "cloud.region=westus",
                "host.id=id",
                "cloud.account.id=sub",
                "azure.vm.name=vm",
                "azure.vm.size=D2",
                "azure.vm.scaleset.name=set",
                "azure.resourcegroup.name=MC_rg_cluster_westus",
                "cloud.availability_zone=1",
                "azure.tag.team=a",
            ],
        )
        .await;
        finds(
            "aks",
            "aks {\nresource_attributes {\nk8s.cluster.name {\nenabled = true\n}\n}\n}",
            &[("KUBERNETES_SERVICE_HOST", "x")],
            AZURE,
            &["cloud.provider=azure", "cloud.platform=azure.aks", "k8s.cluster.name=cluster"],
        )
        .await;
        const F: &str = "metadata-flavor: Google";
        const GOOGLE: Recorded = &[
            ("GET /computeMetadata/v1/project/project-id", F, "p"),
            ("GET /computeMetadata/v1/instance/id", F, "77"),
            ("GET /computeMetadata/v1/instance/name", F, "h"),
            ("GET /computeMetadata/v1/instance/hostname", F, "h.internal"),
            ("GET /computeMetadata/v1/instance/machine-type", F, "projects/1/machineTypes/n1"),
            ("GET /computeMetadata/v1/instance/zone", F, "projects/1/zones/us-central1-c"),
            ("GET /computeMetadata/v1/instance/region", F, "projects/1/regions/us-central1"),
            ("GET /computeMetadata/v1/instance/attributes/cluster-location", F, "us-central1"),
            ("GET /computeMetadata/v1/instance/attributes/cluster-name", F, "c"),
            (
                "GET /computeMetadata/v1/instance/attributes/created-by",
                F,
                "projects/1/zones/us-central1-c/instanceGroupManagers/g",
            ),
        ];
        let with = |rest: &[&'static str]| [&["cloud.provider=gcp", "cloud.account.id=p"], rest].concat();
        finds(
            "gcp",
            "",
            &[("GCE_METADATA_HOST", "HOST:PORT")],
            GOOGLE,
            &with(&[
                "cloud.platform=gcp_compute_engine",
                "cloud.region=us-central1",
                "cloud.availability_zone=us-central1-c",
                "host.type=projects/1/machineTypes/n1",
                "host.id=77",
                "host.name=h",
                "gcp.gce.instance_group_manager.name=g",
                "gcp.gce.instance_group_manager.zone=us-central1-c",
            ]),
        )
        .await;
        for (env, want) in [
            (
                &[("KUBERNETES_SERVICE_HOST", "x")][..],
                &[
                    "cloud.platform=gcp_kubernetes_engine",
                    "cloud.region=us-central1",
                    "k8s.cluster.name=c",
                    "host.id=77",
                    "host.name=h",
                ][..],
            ),
            (
                &[("FUNCTION_TARGET", "x"), ("K_CONFIGURATION", "x"), ("K_SERVICE", "s"), ("K_REVISION", "r")],
                &[
                    "cloud.platform=gcp_cloud_functions",
                    "faas.name=s",
                    "faas.version=r",
                    "faas.instance=77",
                    "cloud.region=us-central1",
                ],
            ),
            (
                &[("GAE_SERVICE", "s"), ("GAE_VERSION", "v"), ("GAE_INSTANCE", "i"), ("GAE_ENV", "standard")],
                &[
                    "cloud.platform=gcp_app_engine",
                    "faas.name=s",
                    "faas.version=v",
                    "faas.instance=i",
                    "cloud.availability_zone=us-central1-c",
                    "cloud.region=us-central1",
                ],
            ),
            (
                &[("K_CONFIGURATION", "x"), ("K_SERVICE", "s"), ("K_REVISION", "r")],
                &[
                    "cloud.platform=gcp_cloud_run",
                    "faas.name=s",
                    "faas.version=r",
                    "faas.instance=77",
                    "cloud.region=us-central1",
                ],
            ),
            (
                &[("CLOUD_RUN_JOB", "j"), ("CLOUD_RUN_EXECUTION", "j-1"), ("CLOUD_RUN_TASK_INDEX", "0")],
                &[
                    "cloud.platform=gcp_cloud_run",
                    "faas.name=j",
                    "cloud.region=us-central1",
                    "faas.instance=77",
                    "gcp.cloud_run.job.execution=j-1",
                    "gcp.cloud_run.job.task_index=0",
                ],
            ),
            (
                &[("GAE_SERVICE", "s"), ("GAE_VERSION", "v"), ("GAE_INSTANCE", "i"), ("GAE_ENV", "flex")],
                &[
                    "cloud.platform=gcp_app_engine",
                    "faas.name=s",
                    "faas.version=v",
                    "faas.instance=i",
                    "cloud.region=us-central1",
                    "cloud.availability_zone=us-central1-c",
                ],
            ),
        ] {
            finds("gcp", "", env, GOOGLE, &with(want)).await;
        }
        let zonal: Vec<_> = GOOGLE.iter().filter(|(line, ..)| !line.ends_with("cluster-location")).copied().collect();
        let other = &[("KUBERNETES_SERVICE_HOST", "x"), ("CLOUD_RUN_WORKER_POOL", "w"), ("K_REVISION", "r")];
        let pool = [
            "cloud.platform=gcp_cloud_run",
            "faas.name=w",
            "faas.version=r",
            "faas.instance=77",
            "cloud.region=us-central1",
        ];
        finds("gcp", "", other, zonal.clone().leak(), &with(&pool)).await;
        let location = ("GET /computeMetadata/v1/instance/attributes/cluster-location", F, "us-central1-c");
        let kubernetes = [
            "cloud.platform=gcp_kubernetes_engine",
            "cloud.availability_zone=us-central1-c",
            "cloud.region=us-central1",
            "k8s.cluster.name=c",
            "host.id=77",
            "host.name=h",
        ];
        finds("gcp", "", &other[..1], [zonal, vec![location]].concat().leak(), &with(&kubernetes)).await;
        let metal = [("BMS_PROJECT_ID", "b"), ("BMS_REGION", "r"), ("BMS_INSTANCE_ID", "i")];
        let want = [
            "cloud.provider=gcp",
            "cloud.account.id=b",
            "cloud.platform=gcp_bare_metal_solution",
            "host.name=i",
            "cloud.region=r",
        ];
        finds("gcp", "", &metal, &[], &want).await;
    }

    const CLUSTER: Recorded = &[
        ("GET /version", "authorization: Bearer account", r#"{"gitVersion":"v1.30-eks-1"}"#),
        (
            "GET /api/v1/nodes/n1",
            "authorization: Bearer account",
            r#"{"metadata":{"uid":"u1","name":"n1"},"spec":{"providerID":"aws:///us-west-2b/i-0"}}"#,
        ),
        (
            "GET /api/v1/namespaces/kube-system/configmaps/kubeadm-config",
            "",
            r#"{"data":{"ClusterConfiguration":"apiServer: {}\nclusterName: prod\n"}}"#,
        ),
        ("GET /api/v1/namespaces/kube-system", "", r#"{"metadata":{"uid":"k1"}}"#),
        (
            "GET /apis/config.openshift.io/v1/infrastructures/cluster/status",
            "authorization: Bearer given",
            r#"{"status":{"infrastructureName":"c","platformStatus":{"type":"AWS","aws":{"region":"US-EAST-1"}}}}"#,
        ),
        (
            "POST /",
            "",
            "<R><item><ownerId>123</ownerId><instancesSet><item><tagSet><item><key>x</key><value>y</value></item><item><key>\
             kubernetes.io/cluster/prod</key><value>owned</value></item></tagSet></item></instancesSet></item></R>",
        ),
    ];

    #[tokio::test]
    async fn clusters() {
        let world = host("otelcol.processor.resourcedetection.a");
        world.write("var/run/secrets/kubernetes.io/serviceaccount/token", "account\n");
        let root = world.path("");
        let pod = [
            ("KUBERNETES_SERVICE_HOST", "HOST"),
            ("KUBERNETES_SERVICE_PORT", "PORT"),
            ("K8S_NODE_NAME", "n1"),
            ("AWS_ENDPOINT_URL", "ORIGIN"),
            ("AWS_ACCESS_KEY_ID", "AKID"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        for (detector, settings, want) in [
            (
                "kubernetes_node",
                "kubernetes_node {\nauth_type = \"serviceAccount\"\n}",
                &["k8s.node.uid=u1", "k8s.node.name=n1"][..],
            ),
            ("kubeadm", "", &["k8s.cluster.name=prod", "k8s.cluster.uid=k1"]),
            (
                "openshift",
                "openshift {\naddress = \"ORIGIN/\"\ntoken = \"given\"\n}",
                &["k8s.cluster.name=c", "cloud.provider=aws", "cloud.platform=aws_openshift", "cloud.region=us-east-1"],
            ),
            ("eks", "", &["cloud.provider=aws", "cloud.platform=aws_eks"]),
            (
                "eks",
                "eks {\nresource_attributes {\ncloud.account.id {\nenabled = true\n}\nk8s.cluster.name {\nenabled = true\n}\n}\n}",
                &["cloud.provider=aws", "cloud.platform=aws_eks", "cloud.account.id=123", "k8s.cluster.name=prod"],
            ),
        ] {
            assert_eq!(found(detector, settings, &pod, &root, CLUSTER).await.unwrap(), want, "{detector}");
        }
        // It is told by who signs, too, and by the pod's credentials.
        for (env, recorded) in [
            (
                None,
                &[(
                    "GET /.well-known/openid-configuration",
                    "",
                    r#"{"issuer":"https://oidc.eks.x.amazonaws.com/id/1"}"#,
                )][..],
            ),
            (Some(("AWS_WEB_IDENTITY_TOKEN_FILE", "/var/run/secrets/eks.amazonaws.com/serviceaccount/token")), &[]),
            (
                Some((
                    "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                    "/var/run/secrets/pods.eks.amazonaws.com/eks-pod-identity",
                )),
                &[],
            ),
        ] {
            let env: Vec<_> = pod.into_iter().chain(env).collect();
            let want = ["cloud.provider=aws", "cloud.platform=aws_eks"];
            assert_eq!(found("eks", "", &env, &root, recorded).await.unwrap(), want);
        }
        // Of itself a detector takes the API and the account of the pod.
        let recorded: Recorded = &[(
            "GET /apis/config.openshift.io/v1/infrastructures/cluster/status",
            "authorization: Bearer account",
            r#"{"status":{"infrastructureName":"c"}}"#,
        )];
        assert_eq!(found("openshift", "", &pod, &root, recorded).await.unwrap(), ["k8s.cluster.name=c"]);
        let other: Recorded = &[("GET /version", "", r#"{"gitVersion":"v1.30-gke.1"}"#)];
        let outcome = found("eks", "", &pod, &root, other).await;
        assert_eq!(outcome, Err(Miss::elsewhere("eks metadata unavailable: not running on EKS")));
        for (detector, settings) in [
            ("kubernetes_node", "kubernetes_node {\nauth_type = \"serviceAccount\"\nnode_from_env_var = \"\"\n}"),
            ("kubeadm", ""),
            ("openshift", "openshift {\naddress = \"ORIGIN\"\ntoken = \"given\"\n}"),
            ("eks", ""),
        ] {
            let outcome = found(detector, settings, &pod, &root, &[]).await;
            assert!(matches!(outcome, Err(Miss::Elsewhere(_))), "{detector}: {outcome:?}");
        }
        let outcome = found("kubernetes_node", "", &pod[..2], &root, CLUSTER).await;
        let want = "node name can't be found. Check the readme on how to set the required env variable";
        assert_eq!(outcome, Err(Miss::Failed(want.to_owned())));
        let outcome = found("kubeadm", "", &[], &root, CLUSTER).await;
        assert!(matches!(outcome, Err(Miss::Failed(why)) if why.contains("KUBERNETES_SERVICE_HOST and")));
    }

    #[tokio::test]
    async fn a_cluster_of_the_configuration_of_kubectl() {
        let world = host("otelcol.processor.resourcedetection.a");
        let server = server(CLUSTER).await;
        let config = format!(
            "current-context: other\ncontexts:\n- name: main\n  context: {{cluster: c, user: u}}\nclusters:\n- name: c\n  \
             cluster:\n    server: {}\nusers:\n- name: u\n  user: {{token: account}}\n",
            server.url("")
        );
        world.write("home/.kube/config", config);
        let settings =
            |context: &str| format!("kubernetes_node {{\nauth_type = \"kubeConfig\"\ncontext = {context:?}\n}}");
        let env = [("HOME", "/home"), ("K8S_NODE_NAME", "n1")];
        let got = found("kubernetes_node", &settings("main"), &env, &world.path(""), &[]).await.unwrap();
        assert_eq!(got, ["k8s.node.uid=u1", "k8s.node.name=n1"]);
        let Err(Miss::Failed(why)) = found("kubernetes_node", &settings(""), &env, &world.path(""), &[]).await else {
            panic!("there is no such context");
        };
        assert!(why.ends_with("auth_type=kubeConfig: context \"other\" does not exist"), "{why}");
        // Several files are one configuration, and a token may be in a file beside its own.
        world.write("a/config", "current-context: main\nusers:\n- name: u\n  user: {tokenFile: token}\n");
        world.write("a/token", "account\n");
        let env = [("KUBECONFIG", "/a/config:/home/.kube/config"), ("K8S_NODE_NAME", "n1")];
        let got = found("kubernetes_node", &settings(""), &env, &world.path(""), &[]).await.unwrap();
        assert_eq!(got, ["k8s.node.uid=u1", "k8s.node.name=n1"]);
    }

    #[tokio::test]
    async fn agents_and_platforms() {
        const AGENT: &str =
            r#"{"Config":{"Datacenter":"dc1","NodeName":"h","NodeID":"n"},"Meta":{"env":"prod","x":"y"}}"#;
        finds(
            "consul",
            "consul {\naddress = \"ORIGIN\"\ntoken = \"t\"\ndatacenter = \"dc 1\"\nnamespace = \"ns\"\nmeta = [\"env\"]\n}",
            &[],
            &[("GET /v1/agent/self?dc=dc%201&ns=ns", "x-consul-token: t", AGENT)],
            &["host.name=h", "cloud.region=dc1", "host.id=n", "env=prod"],
        )
        .await;
        finds(
            "docker",
            "",
            &[("DOCKER_HOST", "tcp://HOST:PORT")],
            &[("GET /info", "", r#"{"Name":"h","OSType":"linux"}"#)],
            &["os.type=linux", "host.name=h"],
        )
        .await;
        finds(
            "heroku",
            "",
            &[("HEROKU_DYNO_ID", "d"), ("HEROKU_APP_ID", "a"), ("HEROKU_RELEASE_VERSION", "v1")],
            &[],
            &[
                "cloud.provider=heroku",
                "heroku.dyno.id=d",
                "service.instance.id=d",
                "heroku.app.id=a",
                "service.version=v1",
            ],
        )
        .await;
        finds("env", "", &[("OTEL_RESOURCE_ATTRIBUTES", "a=b,c=d,a=e")], &[], &["c=d", "a=e"]).await;
        let world = host("otelcol.processor.resourcedetection.a");
        world.write(
            "var/lib/dynatrace/enrichment/dt_host_metadata.properties",
            "dt.entity.host=HOST-1\nhost.name=h\nother=x\n",
        );
        let got = found("dynatrace", "", &[], &world.path(""), &[]).await.unwrap();
        assert_eq!(got, ["dt.entity.host=HOST-1", "host.name=h"]);
    }

    #[cfg(unix)]
    #[tokio::test]
    async fn a_docker_daemon_is_asked_over_its_socket() {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let world = host("otelcol.processor.resourcedetection.a");
        world.write("var/run/x", "");
        let listener = tokio::net::UnixListener::bind(world.path("var/run/docker.sock")).unwrap();
        let daemon = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = vec![0; 1024];
            let len = stream.read(&mut asked).await.unwrap();
            let body = r#"{"Name":"h","OSType":"linux"}"#;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
            String::from_utf8_lossy(&asked[..len]).into_owned()
        });
        let got = found("docker", "", &[], &world.path(""), &[]).await.unwrap();
        assert_eq!(got, ["os.type=linux", "host.name=h"]);
        assert!(daemon.await.unwrap().starts_with("GET /info HTTP/1.1\r\n"));
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn the_machine_itself() {
        let world = host("otelcol.processor.resourcedetection.a");
        for (path, content) in [
            ("proc/sys/kernel/hostname", "web-1\n"),
            ("proc/sys/kernel/ostype", "Linux\n"),
            ("proc/sys/kernel/osrelease", "6.1.0\n"),
            ("proc/sys/kernel/version", "#1 SMP\n"),
            ("etc/hosts", "10.0.0.7 web-1.example.org web-1\n"),
            ("etc/machine-id", "abc\n"),
            ("etc/os-release", "NAME=\"Debian GNU/Linux\"\nVERSION=\"12 (bookworm)\"\nVERSION_ID=\"12\"\nID=debian\n"),
            (
                "proc/cpuinfo",
                "vendor_id\t: GenuineIntel\ncpu family\t: 6\nmodel\t\t: 85\nmodel name\t: Xeon\nstepping\t: 7\ncache size\t: 1024 KB\n\nvendor_id : x\n",
            ),
            ("sys/class/net/eth0/flags", "0x1003\n"),
            ("sys/class/net/eth0/address", "00:16:3e:aa:bb:cc\n"),
            ("sys/class/net/eth0/ifindex", "2\n"),
            ("sys/class/net/lo/flags", "0x9\n"),
            ("sys/class/net/lo/ifindex", "1\n"),
            ("sys/class/net/down0/flags", "0x1002\n"),
            ("sys/class/net/down0/ifindex", "3\n"),
            ("proc/net/fib_trie", "|-- 10.0.0.7\n/32 host LOCAL\n"),
            (
                "proc/net/if_inet6",
                "fe80000000000000000000fffe000001 02 40 20 80 eth0\nfe80000000000000000000fffe000002 03 40 20 80 down0\n",
            ),
            ("etc/debian_version", "12.5\n"),
        ] {
            world.write(path, content);
        }
        let root = world.path("");
        let got = found("system", "", &[], &root, &[]).await.unwrap();
        assert_eq!(got, ["host.name=web-1.example.org", "os.type=linux"]);
        let all = [
            "host.arch",
            "host.id",
            "host.ip",
            "host.mac",
            "host.interface",
            "host.cpu.vendor.id",
            "host.cpu.family",
            "host.cpu.model.id",
            "host.cpu.model.name",
            "host.cpu.stepping",
            "host.cpu.cache.l2.size",
            "os.description",
            "os.name",
            "os.version",
            "os.build.id",
        ];
        let all: String = all.iter().map(|name| format!("{name} {{\nenabled = true\n}}\n")).collect();
        let settings = format!("system {{\nhostname_sources = [\"os\"]\nresource_attributes {{\n{all}}}\n}}");
        let got = found("system", &settings, &[], &root, &[]).await.unwrap();
        let arch = std::env::consts::ARCH;
        let amd = match arch {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let want = [
            "host.name=web-1".to_owned(),
            "os.type=linux".to_owned(),
            "host.id=abc".to_owned(),
            format!("host.arch={amd}"),
            "host.ip=[10.0.0.7,fe80::ff:fe00:1]".to_owned(),
            "host.mac=[00-16-3E-AA-BB-CC]".to_owned(),
            "host.interface=[lo,eth0,down0]".to_owned(),
            format!("os.description=Debian GNU/Linux 12 (bookworm) (Linux web-1 6.1.0 #1 SMP {arch})"),
            "os.build.id=6.1.0".to_owned(),
            "os.name=debian".to_owned(),
            "os.version=12.5".to_owned(),
            "host.cpu.vendor.id=GenuineIntel".to_owned(),
            "host.cpu.family=6".to_owned(),
            "host.cpu.model.id=85".to_owned(),
            "host.cpu.model.name=Xeon".to_owned(),
            "host.cpu.stepping=7".to_owned(),
            "host.cpu.cache.l2.size=1024".to_owned(),
        ];
        assert_eq!(got, want);
    }

    async fn start(world: World, sink: &OtlpSink, body: &str) -> Result<Unit, String> {
        let body = format!("{body}\noutput {{\n logs = [sink]\n traces = [sink]\n metrics = [sink]\n}}");
        let definition = Definition::of::<ResourceDetectionProcessor>();
        Unit::start_with(world, &definition, &body, &[("sink", sink.value())]).await
    }

    const LOGS: &str = r#"{"resourceLogs":[{"resource":{"attributes":[{"key":"os.type","value":{"stringValue":"mine"}},
        {"key":"x","value":{"intValue":"1"}}]},"scopeLogs":[{"logRecords":[{"body":{"stringValue":"b"}}]}]}]}"#;

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn what_is_detected_is_added_to_every_signal() {
        let sink = OtlpSink::default();
        let system = "detectors = [\"env\", \"system\"]\nsystem {\nhostname_sources = [\"os\"]\n}";
        let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap().trim().to_owned();
        let mut unit = start(host("otelcol.processor.resourcedetection.a"), &sink, system).await.unwrap();
        let to = unit.world.consumer("input");
        to.logs.consume(otlp::<LogRecord>(LOGS)).await.unwrap();
        to.traces
            .consume(otlp::<Span>(r#"{"resourceSpans":[{"scopeSpans":[{"spans":[{"name":"s"}]}]}]}"#))
            .await
            .unwrap();
        let metrics: Batch<Metric> = otlp(
            r#"{"resourceMetrics":[{"schemaUrl":"u","scopeMetrics":[{"metrics":[{"name":"m","gauge":{"dataPoints":[{}]}}]}]}]}"#,
        );
        to.metrics.consume(metrics).await.unwrap();
        let batches = sink.batches();
        let added = format!(r#"{{"key":"host.name","value":{{"stringValue":"{name}"}}}}"#);
        assert!(batches.iter().all(|batch| batch.json.contains(&added)), "{batches:?}");
        assert!(
            batches[0].json.contains(r#"{"key":"os.type","value":{"stringValue":"linux"}},{"key":"x""#),
            "{batches:?}"
        );
        assert!(batches[1].json.contains(SCHEMA_URL) && batches[2].json.contains(r#""schemaUrl":"u""#), "{batches:?}");
        assert_eq!(unit.world.health_text(), "healthy: started scheduled components");
        let logs = unit.world.logs();
        assert!(
            logs.contains("began detecting resource information") && logs.contains("detected resource information")
        );
        let body = format!("{system}\noverride = false\noutput {{\n logs = [sink]\n}}");
        unit.update(&body).await.unwrap();
        to.logs.consume(otlp::<LogRecord>(LOGS)).await.unwrap();
        let last = sink.batches().pop().unwrap().json;
        assert!(
            last.contains(r#"{"key":"os.type","value":{"stringValue":"mine"}}"#) && last.contains(&added),
            "{last}"
        );
        let began = unit.world.logs().matches("began detecting").count();
        assert_eq!(began, 1, "other outputs need no further detection");
        let told = crate::testing::told(&unit.world);
        let at = told.iter().position(|line| line == "attribute.name = \"host.name\"").unwrap();
        assert_eq!(told[at + 1], format!("attribute.value = \"{name}\""));
        assert_eq!(unit.world.balance_of(corten_signal::Kind::OtelLog), "taken 2, out 2");
        unit.drain().await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_detector_that_fails_is_health_and_holds_data_up_no_longer_than_allowed() {
        let sink = OtlpSink::default();
        let body = "detectors = [\"kubeadm\", \"env\"]\ntimeout = \"3s\"";
        let unit = start(host("otelcol.processor.resourcedetection.a"), &sink, body).await.unwrap();
        let began = Instant::now();
        unit.world.consumer("input").logs.consume(otlp::<LogRecord>(LOGS)).await.unwrap();
        assert!(began.elapsed() <= Duration::from_secs(3), "{:?}", began.elapsed());
        assert_eq!(sink.items(), 1);
        let health = unit.world.health_text();
        assert!(
            health.starts_with("unhealthy: failed to create components: failed creating kubeadm provider: "),
            "{health}"
        );
        assert!(unit.world.logs().contains("failed to detect resource"), "{}", unit.world.logs());
    }

    #[tokio::test]
    async fn a_metadata_service_that_never_answers_is_none_unless_it_must_be_there() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let origin = format!("http://{}", silent.local_addr().unwrap());
        for (insists, want) in [(false, Vec::new()), (true, vec!["ec2: context deadline exceeded".to_owned()])] {
            let settings = format!("detectors = [\"ec2\"]\ntimeout = \"100ms\"\nfail_on_missing_metadata = {insists}");
            let detection = detection(&settings, |_| None, Some(origin.clone())).await;
            assert_eq!(detection.detect(&mut [None]).await, (Detected::default(), want));
        }
    }

    #[tokio::test]
    async fn what_is_lacking_is_a_failure_for_who_insists() {
        let why = "heroku metadata unavailable: HEROKU_DYNO_ID and HEROKU_APP_ID env vars not set";
        for (insists, schema_url, want) in [(false, SCHEMA_URL, Vec::new()), (true, "", vec![why.to_owned()])] {
            let settings =
                format!("detectors = [\"heroku\"]\ntimeout = \"100ms\"\nfail_on_missing_metadata = {insists}");
            let detection = detection(&settings, |_| None, None).await;
            let detected = Detected { schema_url, ..Detected::default() };
            assert_eq!(detection.detect(&mut [None]).await, (detected, want));
        }
    }

    async fn detection(
        settings: &str,
        env: impl Fn(&str) -> Option<String> + Send + Sync + 'static,
        origin: Option<String>,
    ) -> Arc<Detection> {
        let world = host("otelcol.processor.resourcedetection.a");
        let cx = world.context::<ResourceDetectionProcessor>();
        Arc::new(Detection {
            arguments: arguments(settings).await,
            outside: Outside::with(env, "/nowhere".into(), origin, "test").await.unwrap(),
            sender: watch::channel(None).0,
            logger: cx.logger().clone(),
            health: Arc::clone(cx.health()),
        })
    }

    #[tokio::test]
    async fn what_a_detector_found_stays_when_another_is_asked_again() {
        let settings = "detectors = [\"env\", \"kubeadm\"]\ntimeout = \"100ms\"";
        let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let times = Arc::clone(&asked);
        let env = move |name: &str| {
            let is_first =
                name == "OTEL_RESOURCE_ATTRIBUTES" && times.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
            is_first.then(|| "a=b".to_owned())
        };
        let detection = detection(settings, env, None).await;
        let mut known = [None, None];
        for _ in 0..2 {
            let (detected, errors) = detection.detect(&mut known).await;
            assert_eq!(detected.attributes, [("a".to_owned(), Found::Text("b".to_owned()))]);
            assert_eq!(errors.len(), 1);
        }
    }

    #[tokio::test]
    async fn what_is_not_known_is_refused() {
        let sink = OtlpSink::default();
        for (body, why) in [
            ("detectors = []", "at least one detector must be specified"),
            ("detectors = [\"env\", \"k8snode\"]", "invalid detector: k8snode"),
            ("system {\nhostname_sources = [\"x\"]\n}", "invalid hostname source: x"),
            ("kubeadm {\nauth_type = \"x\"\n}", "invalid auth_type \"x\""),
            ("ec2 {\ntags = [\"(\"]\n}", "missing closing )"),
            ("ec2 {\nresource_attributes {\nhost.id { }\n}\n}", "missing required attribute \"enabled\""),
            ("ec2 {\nresource_attributes {\nhost.x {\nenabled = true\n}\n}\n}", "unrecognized block name"),
        ] {
            let error =
                start(host("otelcol.processor.resourcedetection.a"), &sink, body).await.map(|_| ()).unwrap_err();
            assert!(error.contains(why), "{body}: {error}");
        }
        assert!(DETECTORS.is_sorted() && ALWAYS_THERE.iter().all(|name| DETECTORS.contains(name)));
    }
}
