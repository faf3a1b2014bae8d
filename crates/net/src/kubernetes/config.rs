//! Where the API is, and how to talk to it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value;

use super::yaml::parse_yaml;
use crate::config::{BasicAuth, ClientConfig, ProxyConfig, ProxyUrl, TlsConfig};
use crate::files::{off_thread, read_secret, read_tls_file};
use crate::{Error, Secret};

/// Where a pod finds its service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

type Lookup = dyn Fn(&str) -> Option<String> + Send + Sync;

/// The environment variables and files that say where the API is.
#[derive(Clone)]
pub struct Surroundings {
    env: Arc<Lookup>,
    root: PathBuf,
}

impl Surroundings {
    /// The process's own.
    pub fn process() -> Self {
        Self::new(Arc::new(|name| std::env::var(name).ok()), PathBuf::from("/"))
    }

    /// Others: what stands for the environment, and the folder that stands for the root of the file system.
    pub fn new(env: Arc<Lookup>, root: PathBuf) -> Self {
        Self { env, root }
    }

    /// The namespace of the pod that this runs in.
    ///
    /// # Errors
    /// It does not run in a pod, or the file that says it cannot be read.
    pub async fn namespace(&self) -> Result<String, Error> {
        let path = self.path(&format!("{ACCOUNT}/namespace"));
        let read = off_thread(move || if path.exists() { read_secret(&path).map(Some) } else { Ok(None) }).await??;
        let namespace = read.ok_or_else(|| Error::config("not running in-cluster, please specify namespace"))?;
        Ok(namespace.expose().to_owned())
    }

    /// An environment variable, unless it is empty.
    fn env(&self, name: &str) -> Option<String> {
        (self.env)(name).filter(|value| !value.is_empty())
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }
}

/// Where the API is, and how to talk to it.
#[derive(Clone, Debug, PartialEq)]
pub struct ApiConfig {
    /// The URL below which everything lies, without a slash at its end.
    pub url: String,
    /// Authentication, TLS and proxy.
    pub client: ClientConfig,
}

impl ApiConfig {
    /// What can be found: the configuration of kubectl, if the variable `KUBECONFIG` names one, else the service account
    /// of the pod, else the configuration of kubectl in the home folder.
    ///
    /// # Errors
    /// There is none, or it cannot be used.
    pub async fn find(surroundings: &Surroundings) -> Result<Self, Error> {
        if surroundings.env("KUBECONFIG").is_some() {
            return Self::of_kubectl(surroundings, "").await;
        }
        match Self::of_pod(surroundings).await {
            Ok(config) => Ok(config),
            Err(error) => Self::of_kubectl(surroundings, "").await.map_err(|other| {
                Error::config(format!("unable to load in-cluster config: {error}; unable to get kubeconfig: {other}"))
            }),
        }
    }

    /// That of the cluster in which this is a pod, with the pod's service account. The token is read again for every
    /// request, and the certificate authorities when they change.
    ///
    /// # Errors
    /// This does not run in a pod, or the pod has no service account.
    pub async fn of_pod(surroundings: &Surroundings) -> Result<Self, Error> {
        let url = Self::url_of_pod(surroundings)?;
        let bearer_token_file = Self::token_file_of_pod(surroundings).await?;
        let tls_config = Self::tls_of_pod(surroundings).await?;
        let client = ClientConfig { bearer_token_file, tls_config, ..Self::client() };
        Ok(Self { url, client })
    }

    /// The URL of the API in a pod.
    ///
    /// # Errors
    /// This does not run in a pod.
    pub fn url_of_pod(surroundings: &Surroundings) -> Result<String, Error> {
        let host = surroundings.env("KUBERNETES_SERVICE_HOST");
        let (Some(host), Some(port)) = (host, surroundings.env("KUBERNETES_SERVICE_PORT")) else {
            return Err(Error::config(
                "unable to load in-cluster configuration, KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined",
            ));
        };
        let host = if host.contains(':') { format!("[{host}]") } else { host };
        Ok(format!("https://{host}:{port}"))
    }

    /// The file with the token of a pod's service account.
    ///
    /// # Errors
    /// The pod has no service account, or its token cannot be read.
    pub async fn token_file_of_pod(surroundings: &Surroundings) -> Result<String, Error> {
        let path = surroundings.path(&format!("{ACCOUNT}/token"));
        let file = path.display().to_string();
        off_thread(move || read_secret(&path)).await??;
        Ok(file)
    }

    /// The certificate authorities of a pod; those of the system if it has none.
    ///
    /// # Errors
    /// Files cannot be looked at, because the process ends.
    pub async fn tls_of_pod(surroundings: &Surroundings) -> Result<TlsConfig, Error> {
        let authorities = surroundings.path(&format!("{ACCOUNT}/ca.crt"));
        let looked_at = authorities.clone();
        let ca_file = if off_thread(move || looked_at.exists()).await? {
            authorities.display().to_string()
        } else {
            String::new()
        };
        Ok(TlsConfig { ca_file, ..TlsConfig::default() })
    }

    fn client() -> ClientConfig {
        let proxy = ProxyConfig { proxy_from_environment: true, ..ProxyConfig::default() };
        ClientConfig { proxy, ..ClientConfig::default() }
    }

    /// The cluster of the configuration of kubectl: of the files that the variable `KUBECONFIG` lists, or the one in the
    /// home folder. Of what more than one file says the first counts. Without a context it is the current one.
    ///
    /// # Errors
    /// There is no such file, it names no such cluster, or asks for what is not supported: commands that give
    /// credentials, and acting for somebody else.
    pub async fn of_kubectl(surroundings: &Surroundings, context: &str) -> Result<Self, Error> {
        let paths: Vec<PathBuf> = match (surroundings.env("KUBECONFIG"), surroundings.env("HOME")) {
            (Some(paths), _) => std::env::split_paths(&paths).collect(),
            (None, Some(home)) => vec![Path::new(&home).join(".kube").join("config")],
            (None, None) => return Err(Error::config("neither KUBECONFIG nor HOME is set")),
        };
        let paths: Vec<PathBuf> = paths
            .iter()
            .filter(|path| !path.as_os_str().is_empty())
            .map(|path| path.strip_prefix("/").map_or_else(|_| path.clone(), |path| surroundings.root.join(path)))
            .collect();
        let read = move || {
            let mut files = Vec::new();
            for path in &paths {
                // One of several files may be missing.
                if paths.len() == 1 || path.exists() {
                    let wrong = |error: String| Error::config(format!("file {}: {error}", path.display()));
                    let text =
                        String::from_utf8(read_tls_file(path).map_err(|error| Error::config(error.to_string()))?)
                            .map_err(|_| wrong("it is not valid UTF-8".to_owned()))?;
                    let folder = path.parent().unwrap_or(Path::new("/")).to_owned();
                    files.push(File { folder, content: parse_yaml(&text).map_err(wrong)? });
                }
            }
            Ok(files)
        };
        Self::of_files(&off_thread(read).await??, context).map_err(Error::config)
    }

    fn of_files(files: &[File], context: &str) -> Result<Self, String> {
        let current = files.iter().map(|file| text(&file.content, "current-context")).find(|name| !name.is_empty());
        let name = if context.is_empty() { current.unwrap_or_default() } else { context };
        let (_, context) = entry(files, "contexts", "context", name)?;
        let (of_cluster, cluster) = entry(files, "clusters", "cluster", text(context, "cluster"))?;
        let nobody = Value::Null;
        let (of_user, user) = match text(context, "user") {
            "" => (of_cluster, &nobody),
            name => entry(files, "users", "user", name)?,
        };
        for (setting, what) in [
            ("exec", "a command that gives credentials"),
            ("auth-provider", "an authentication provider"),
            ("as", "acting for somebody else"),
            ("as-uid", "acting for somebody else"),
            ("as-groups", "acting for somebody else"),
        ] {
            if user.get(setting).is_some_and(|value| !value.is_null() && *value != "") {
                return Err(format!("user {:?} asks for {what}, which is not supported", text(context, "user")));
            }
        }
        // What is given as data counts, else the file.
        let pair = |folder: &Path, of: &Value, data: &str, file: &str| match decoded(of, data)? {
            pem if pem.is_empty() => Ok::<_, String>((pem, in_folder(folder, text(of, file)))),
            pem => Ok((pem, String::new())),
        };
        let (ca_pem, ca_file) =
            pair(&of_cluster.folder, cluster, "certificate-authority-data", "certificate-authority")?;
        let (cert_pem, cert_file) = pair(&of_user.folder, user, "client-certificate-data", "client-certificate")?;
        let (key_pem, key_file) = pair(&of_user.folder, user, "client-key-data", "client-key")?;
        let tls_config = TlsConfig {
            ca_pem,
            ca_file,
            cert_pem,
            cert_file,
            key_pem: Secret::new(key_pem),
            key_file,
            server_name: text(cluster, "tls-server-name").to_owned(),
            insecure_skip_verify: cluster.get("insecure-skip-tls-verify") == Some(&Value::Bool(true)),
            ..TlsConfig::default()
        };
        let mut client = ClientConfig { tls_config, ..Self::client() };
        // A token wins over a name with a password, and its file over the token.
        match (text(user, "tokenFile"), text(user, "token"), text(user, "username")) {
            ("", "", "") => {}
            ("", "", username) => {
                let (username, password) = (username.to_owned(), Secret::new(text(user, "password")));
                client.basic_auth = Some(BasicAuth { username, password, ..BasicAuth::default() });
            }
            ("", token, _) => client.bearer_token = Secret::new(token),
            (file, ..) => client.bearer_token_file = in_folder(&of_user.folder, file),
        }
        match text(cluster, "proxy-url") {
            "" => {}
            proxy => {
                let proxy_url = ProxyUrl::new(proxy).map_err(|error| format!("proxy-url: {error}"))?;
                client.proxy = ProxyConfig { proxy_url, ..ProxyConfig::default() };
            }
        }
        let server = text(cluster, "server").trim_end_matches('/');
        if server.is_empty() {
            return Err(format!("cluster {:?} has no server", text(context, "cluster")));
        }
        // Where anything is said of certificates, TLS is meant.
        let tls = &client.tls_config;
        let has_certificates =
            [&tls.ca_pem, &tls.ca_file, &tls.cert_pem, &tls.cert_file].iter().any(|it| !it.is_empty());
        let scheme = if has_certificates || tls.insecure_skip_verify { "https" } else { "http" };
        let url = if server.contains("://") { server.to_owned() } else { format!("{scheme}://{server}") };
        Ok(Self { url, client })
    }
}

/// A file of the configuration of kubectl.
struct File {
    /// What the paths in it start from.
    folder: PathBuf,
    content: Value,
}

/// What a list says of a name, and in which file.
fn entry<'a>(files: &'a [File], list: &str, what: &str, name: &str) -> Result<(&'a File, &'a Value), String> {
    let found = files.iter().find_map(|file| {
        let entries = file.content.get(list).and_then(Value::as_array).into_iter().flatten();
        let mut named = entries.filter(|entry| text(entry, "name") == name);
        Some((file, named.find_map(|entry| entry.get(what))?))
    });
    found.ok_or_else(|| format!("{what} {name:?} does not exist"))
}

fn text<'a>(json: &'a Value, name: &str) -> &'a str {
    json.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn decoded(json: &Value, name: &str) -> Result<String, String> {
    let encoded: String = text(json, name).split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(encoded).ok();
    bytes.and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(|| format!("{name} is not valid"))
}

fn in_folder(folder: &Path, path: &str) -> String {
    if path.is_empty() { String::new() } else { folder.join(path).display().to_string() }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const USER: &str = "token: t";

    fn kubeconfig(server: &str, user: &str) -> String {
        format!(
            "current-context: main\ncontexts:\n- name: main\n  context: {{cluster: c, user: u}}\n- name: bare\n  context: \
             {{cluster: c}}\n- name: lost\n  context: {{cluster: x}}\nclusters:\n- name: c\n  cluster:\n    server: \
             {server}\n    certificate-authority: ca.pem\n    tls-server-name: name\nusers:\n- name: u\n  user: {{{user}}}\n"
        )
    }

    /// A folder that stands for the root, with these files in it.
    fn surroundings(env: &[(&'static str, &'static str)], files: &[(&str, &str)]) -> (tempfile::TempDir, Surroundings) {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, content).unwrap();
        }
        let env = env.to_vec();
        let lookup =
            move |name: &str| env.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        let surroundings = Surroundings::new(Arc::new(lookup), root.path().to_owned());
        (root, surroundings)
    }

    async fn found(env: &[(&'static str, &'static str)], files: &[(&str, &str)]) -> Result<ApiConfig, String> {
        let (_root, surroundings) = surroundings(env, files);
        ApiConfig::find(&surroundings).await.map_err(|error| error.to_string())
    }

    const POD: [(&str, &str); 2] = [("KUBERNETES_SERVICE_HOST", "10.0.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];
    const TOKEN: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";

    #[tokio::test]
    async fn the_variable_wins_over_the_pod_that_wins_over_the_home_folder() {
        let of_variable = kubeconfig("https://variable/", USER);
        let of_home = kubeconfig("https://home", USER);
        let files = [("conf/a", &*of_variable), ("home/.kube/config", &of_home), (TOKEN, "account")];
        let home = ("HOME", "/home");
        for (env, files, url) in [
            (&[POD[0], POD[1], home, ("KUBECONFIG", "/none:/conf/a")][..], &files[..], "https://variable"),
            (&[POD[0], POD[1], home], &files, "https://10.0.0.1:443"),
            (&[("KUBERNETES_SERVICE_HOST", "fd00::1"), POD[1]], &files, "https://[fd00::1]:443"),
            // Without an account it is no pod.
            (&[POD[0], POD[1], home], &files[..2], "https://home"),
            (&[home], &files, "https://home"),
        ] {
            assert_eq!(found(env, files).await.unwrap().url, url, "{env:?}");
        }
        // What does not begin with a slash begins in the folder that the process is in.
        let error = found(&[("KUBECONFIG", "no/such")], &[("no/such", &*of_home)]).await.unwrap_err();
        assert!(error.contains("no/such") && !error.contains("/no/such"), "{error}");
        let error = found(&[("HOME", "/home")], &[]).await.unwrap_err();
        assert!(
            error.starts_with("unable to load in-cluster config: unable to load in-cluster configuration, "),
            "{error}"
        );
        assert!(error.ends_with("home/.kube/config: no such file or directory"), "{error}");
    }

    #[tokio::test]
    async fn the_namespace_is_that_of_the_pod() {
        let (_root, within) = surroundings(&[], &[(&TOKEN.replace("token", "namespace"), "tracing\n")]);
        assert_eq!(within.namespace().await.unwrap(), "tracing");
        let (_root, elsewhere) = surroundings(&[], &[]);
        let error = elsewhere.namespace().await.unwrap_err().to_string();
        assert_eq!(error, "not running in-cluster, please specify namespace");
    }

    #[tokio::test]
    async fn a_cluster_of_the_configuration_of_kubectl() {
        let of = async |text: &str, context: &str| {
            let (root, surroundings) = surroundings(&[("KUBECONFIG", "/d/c")], &[("d/c", text)]);
            let config = ApiConfig::of_kubectl(&surroundings, context).await;
            let root = root.path().display().to_string();
            config.map(|config| (config, root)).map_err(|error| error.to_string())
        };
        let (config, root) = of(&kubeconfig("https://c", USER), "").await.unwrap();
        assert_eq!(config.client.bearer_token.expose(), "t");
        let tls = &config.client.tls_config;
        assert_eq!((tls.ca_file.clone(), &*tls.server_name), (format!("{root}/d/ca.pem"), "name"));
        assert!(config.client.proxy.proxy_from_environment);
        let user =
            "tokenFile: f/t, token: t, client-certificate-data: Yw==, client-certificate: x, client-key-data: aw==";
        let (config, root) = of(&kubeconfig("https://c", user), "main").await.unwrap();
        assert_eq!(config.client.bearer_token_file, format!("{root}/d/f/t"));
        let tls = &config.client.tls_config;
        assert_eq!((&*tls.cert_pem, &*tls.cert_file, tls.key_pem.expose()), ("c", "", "k"));
        let (config, _) = of(&kubeconfig("https://c", "exec: null, tokenFile: ~, token: t"), "").await.unwrap();
        assert_eq!((config.client.bearer_token.expose(), &*config.client.bearer_token_file), ("t", ""));
        let (config, _) = of(&kubeconfig("https://c", "username: n, password: p"), "").await.unwrap();
        assert_eq!(config.client.basic_auth.unwrap().password.expose(), "p");
        let (config, _) = of(&kubeconfig("c:8080\n    proxy-url: http://p", USER), "bare").await.unwrap();
        assert_eq!((&*config.url, config.client.proxy.proxy_url.expose()), ("https://c:8080", "http://p"));
        assert!(!config.client.has_auth());
        // No token goes over an open line to a server that has certificates.
        let authority = "    certificate-authority: ca.pem\n";
        for (said, url) in [
            ("", "http://c:8080"),
            ("    certificate-authority-data: Yw==\n", "https://c:8080"),
            ("    insecure-skip-tls-verify: true\n", "https://c:8080"),
            ("    insecure-skip-tls-verify: false\n", "http://c:8080"),
        ] {
            let text = kubeconfig("c:8080", USER).replace(authority, said);
            assert_eq!(of(&text, "").await.unwrap().0.url, url, "{said}");
        }
        for (text, context, why) in [
            (kubeconfig("https://c", USER), "other", "context \"other\" does not exist"),
            (kubeconfig("https://c", USER), "lost", "cluster \"x\" does not exist"),
            (kubeconfig("''", USER), "", "cluster \"c\" has no server"),
            (
                kubeconfig("https://c", "exec: {command: x}"),
                "",
                "a command that gives credentials, which is not supported",
            ),
            (kubeconfig("https://c", "auth-provider: {name: x}, exec: null"), "", "an authentication provider, which"),
            (kubeconfig("https://c", "as: x"), "", "acting for somebody else, which is not supported"),
            (kubeconfig("https://c", "client-key-data: '*'"), "", "client-key-data is not valid"),
            (kubeconfig("https://c\n    proxy-url: 'ftp://p'", USER), "", "proxy-url: "),
            ("a: [".to_owned(), "", "d/c: "),
            (String::new(), "", "context \"\" does not exist"),
        ] {
            let error = of(&text, context).await.unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }

    #[tokio::test]
    async fn of_what_more_than_one_file_says_the_first_counts() {
        let first = "current-context: main\nusers:\n- name: u\n  user: {token: first}\n";
        let second = kubeconfig("https://second", "token: second");
        let (_root, surroundings) = surroundings(&[("KUBECONFIG", "/a:/gone:/b")], &[("a", first), ("b", &second)]);
        let config = ApiConfig::of_kubectl(&surroundings, "").await.unwrap();
        assert_eq!((&*config.url, config.client.bearer_token.expose()), ("https://second", "first"));
    }

    proptest! {
        #[test]
        fn no_configuration_makes_it_panic(
            text in r"(contexts|clusters|users|current-context|name|context|cluster|user|a|:|-|\[|\]|\{|\}|\n| ){0,40}",
        ) {
            if let Ok(content) = parse_yaml(&text) {
                let _ = ApiConfig::of_files(&[File { folder: PathBuf::new(), content }], "a");
            }
        }
    }
}
