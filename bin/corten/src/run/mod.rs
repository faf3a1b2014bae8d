//! `corten run`.

pub(crate) mod flags;

use std::sync::Arc;
use std::time::Duration;

use corten_component::context::RingOfOne;
use corten_component::log::LogSink;
use corten_component::metrics::Registry;
use corten_component::trace::Tracer;
use corten_component::{Logger, ServerSettings, Services};
use corten_http::{Bound, Gatherer, HostNames, Peer, Reloader, Server, ServerOptions};
use corten_os::signals::{Signal, Signals};
use corten_runtime::source::io_error_text;
use corten_runtime::{Controller, LoadError, LoadedBy, Options};
use corten_signal::tap::Taps;
use tokio::sync::Notify;

use crate::run::flags::RunOptions;
use crate::version::{BUILD, VERSION, constant};
use crate::{families, output, seed, storage};

/// The most threads for what would hold up a worker: files, names, certificates. Further work waits.
const BLOCKING_THREADS_MAX: usize = 64;
/// How long such a thread is kept when it has nothing to do.
const BLOCKING_THREAD_IDLE: Duration = Duration::from_secs(2);

pub(crate) fn main(options: &RunOptions) -> Result<(), String> {
    corten_os::limits::raise_open_files_limit();
    // Held until the process ends.
    let _lock = storage::take(&options.storage_path)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(corten_os::limits::worker_threads())
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_keep_alive(BLOCKING_THREAD_IDLE)
        .thread_name("corten")
        .enable_all()
        .build()
        .map_err(|error| format!("failed to start: {}", io_error_text(&error)))?;
    let outcome = runtime.block_on(run(options));
    // Whatever is still under way now was given its time, and may hang for ever.
    runtime.shutdown_background();
    outcome
}

async fn run(options: &RunOptions) -> Result<(), String> {
    let mut signals =
        Signals::new().map_err(|error| format!("failed to listen to signals: {}", io_error_text(&error)))?;
    let sink = LogSink::standard_error();
    let logger = Logger::new(Arc::clone(&sink));
    let (installation_id, not_kept) = seed::installation_id(&options.storage_path);
    if let Some(error) = not_kept {
        logger.error("failed to write the seed file", &[("err", error.into())]);
    }

    let listen_failed =
        |error: std::io::Error| format!("failed to listen on {}: {}", options.listen_address, io_error_text(&error));
    let bound = corten_http::bind(&options.listen_address).await.map_err(listen_failed)?;
    let (memory, dialer) = corten_net::memory::listen(&options.memory_address);

    let server = ServerSettings::default();
    let secrets = Arc::clone(&server.secrets);
    sink.mask(Arc::clone(&secrets));
    let registry = Registry::new();
    let gatherer = Gatherer::new(BUILD, registry.clone());
    let services = Arc::new(Services {
        storage_path: options.storage_path.clone(),
        stability: options.stability,
        memory_address: options.memory_address.clone(),
        dialer: Arc::new(dialer),
        ownership: Arc::new(RingOfOne::default()),
        installation_id,
        version: VERSION.to_owned(),
        user_agent: user_agent(),
        gather: Arc::new({
            let gatherer = Arc::clone(&gatherer);
            move || gatherer.gather()
        }),
        queue_bytes_max: options.queue_bytes_max,
        registry,
        server,
        tracer: Tracer::default(),
        taps: Arc::new(Taps::new(secrets)),
    });
    let controller = Controller::new(Options {
        scope: String::new(),
        catalog: families::catalog(),
        services: Arc::clone(&services),
        logger: logger.with(&[("controller_path", "/"), ("controller_id", "")]),
        shutdown_deadline: options.shutdown_deadline,
    });
    if !options.ledger_metrics {
        controller.without_book_metrics();
    }
    gatherer.watch(&controller);

    // A signal that comes while the first configuration is loaded ends the process at once: nothing runs yet.
    let loaded = tokio::select! {
        loaded = controller.load(&options.path) => loaded,
        () = stopped(&mut signals) => return Ok(()),
    };
    if let Err(error) = loaded {
        sink.discard_waiting();
        return Err(tell_of_failure(&error, options));
    }
    sink.configure_if_waiting();

    let reloader = Reloader::new(Arc::clone(&controller), options.path.clone(), logger.clone());
    let peer = this_peer(options, &bound);
    let server = Server::start(
        bound,
        memory,
        Arc::clone(&controller),
        &services,
        reloader.clone(),
        ServerOptions {
            ui_path_prefix: options.ui_path_prefix.clone(),
            support_bundle: options.support_bundle.clone(),
            graphql: options.graphql,
            build: BUILD,
            peer,
            hosts: HostNames { own: own_names(&options.listen_address), allowed: options.allowed_hosts.clone() },
            logger: logger.with(&[("service", "http")]),
        },
    );
    let server = match server {
        Ok(server) => server,
        Err(error) => {
            controller.shutdown().await;
            return Err(listen_failed(error));
        }
    };
    logger.info("{^_^} Alloy is running", &[]);

    // Reloads run one after the other, and signals that come meanwhile ask for one more only.
    let wanted = Arc::new(Notify::new());
    tokio::spawn({
        let wanted = Arc::clone(&wanted);
        async move {
            loop {
                wanted.notified().await;
                // It was logged, and whoever sent the signal does not wait for an answer.
                let _ = reloader.reload(LoadedBy::Signal).await;
            }
        }
    });
    while signals.next().await == Signal::Reload {
        wanted.notify_one();
    }

    logger.info("shutting down", &[]);
    sink.settle();
    tokio::spawn(async move {
        loop {
            if let Signal::Stop { exit_status } = signals.next().await {
                std::process::exit(exit_status);
            }
        }
    });
    // First the server, which would otherwise be open to everybody once the block that guards it is gone.
    server.stop().await;
    controller.shutdown().await;
    Ok(())
}

/// Waits for a signal that ends the process.
async fn stopped(signals: &mut Signals) {
    while signals.next().await == Signal::Reload {}
}

/// Tells why the first configuration was refused, and gives the last line of that.
fn tell_of_failure(error: &LoadError, options: &RunOptions) -> String {
    let Some(diagnostics) = error.diagnostics() else { return error.describe(&options.path) };
    output::error(&diagnostics.render(output::colour()));
    output::print("\n");
    "could not perform the initial load successfully".to_owned()
}

/// What HTTP clients call themselves: with the system, and with how the program was deployed as far as packages tell.
fn user_agent() -> String {
    let known = ["operator", "helm", "docker", "deb", "rpm", "brew"];
    let mode = std::env::var("ALLOY_DEPLOY_MODE").ok().filter(|mode| known.contains(&mode.as_str()));
    format!("Corten/{VERSION} ({}; {})", constant("os"), mode.as_deref().unwrap_or("binary"))
}

/// The names that the program is sure to be reached by: the one that it was told to listen at, and the machine's.
fn own_names(listen_address: &str) -> Vec<String> {
    let machine = constant("hostname");
    let short = machine.split('.').next().unwrap_or_default().to_owned();
    vec![listen_address.to_owned(), short, machine]
}

/// This process as the list of peers shows it.
fn this_peer(options: &RunOptions, bound: &Bound) -> Peer {
    let port = bound.address().map_or(80, |address| address.port());
    let address = match &options.advertise_address {
        None => format!("127.0.0.1:{port}"),
        Some(address) if has_port(address) => address.clone(),
        Some(address) if address.contains(':') => format!("[{}]:{port}", address.trim_matches(['[', ']'])),
        Some(address) => format!("{address}:{port}"),
    };
    Peer { name: options.node_name.clone(), address }
}

fn has_port(address: &str) -> bool {
    match address.rsplit_once(':') {
        // Without brackets the colons are those of an address of IPv6.
        Some((host, _)) => !host.contains(':') || host.ends_with(']'),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_a_port_behind_its_last_colon() {
        for (address, expected) in
            [("a", false), ("a:1", true), ("::1", false), ("[::1]", false), ("[::1]:1", true), ("fe80::1:2", false)]
        {
            assert_eq!(has_port(address), expected, "{address}");
        }
    }
}
