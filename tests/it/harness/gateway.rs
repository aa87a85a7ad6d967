//! The real program with a real configuration: started, watched, and killed when dropped.

use std::fs;
use std::io::Read as _;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::client::{self, Connection, Reply};
use super::ports;

/// How long anything may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(20);

/// What to wait for after the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Until {
    /// `/status/ready` answers 200.
    Ready,
    /// `/status` answers 200: the program serves, though something may not resolve.
    Alive,
}

/// A gateway about to be started.
pub struct Builder {
    dir: TempDir,
    resources: String,
    bootstrap: Value,
    bootstrap_last: Value,
    env: Vec<(String, String)>,
    args: Vec<String>,
    until: Until,
    folder: bool,
    user: Option<u32>,
}

impl Builder {
    /// Resources stand in a folder, `resources/`, in parts.
    pub fn folder(mut self) -> Self {
        fs::create_dir_all(self.dir.path().join("resources")).unwrap();
        self.folder = true;
        self
    }

    /// A part of the resources, by its file name in the folder.
    pub fn part(self, name: &str, yaml: &str) -> Self {
        write_atomically(&self.dir.path().join("resources").join(name), &ended(yaml));
        self
    }

    /// `apisix.yaml`; `#END` is added where it is missing.
    pub fn resources(mut self, yaml: impl Into<String>) -> Self {
        self.resources = yaml.into();
        self
    }

    /// Keys of `config.yaml` laid over the harness's own: maps merge, all else replaces.
    pub fn bootstrap(mut self, yaml: &str) -> Self {
        let over = serde_yaml::from_str(yaml).expect("a test's bootstrap is YAML");
        merge(&mut self.bootstrap, over);
        self
    }

    /// Keys of `config.yaml` laid over everything, the harness's listeners included.
    pub fn bootstrap_last(mut self, yaml: &str) -> Self {
        let over = serde_yaml::from_str(yaml).expect("a test's bootstrap is YAML");
        merge(&mut self.bootstrap_last, over);
        self
    }

    /// An environment variable of the program.
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A further argument of `claviger run`.
    pub fn arg(mut self, arg: &str) -> Self {
        self.args.push(arg.to_owned());
        self
    }

    /// A file beside the configuration, such as a CA or a secret; mode 0600, folders 0700.
    pub fn file(self, name: &str, content: impl AsRef<[u8]>) -> Self {
        write_private(&self.dir.path().join(name), content.as_ref());
        self
    }

    /// The folder the configuration will stand in.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Does not wait for readiness: some reference of this configuration does not resolve.
    pub fn unready(mut self) -> Self {
        self.until = Until::Alive;
        self
    }

    /// Runs the program as `nobody` where the test runs as root.
    pub fn unprivileged(mut self) -> Self {
        self.user = rustix::process::getuid().is_root().then_some(NOBODY);
        self
    }

    /// Starts the program and waits until it serves.
    pub fn start(self) -> Gateway {
        let until = self.until;
        let mut gateway = self.spawn();
        gateway.wait_for(until);
        gateway
    }

    /// Starts the program and waits for nothing: for configurations it must refuse.
    pub fn spawn(mut self) -> Gateway {
        let addrs = Addrs::free();
        addrs.write_into(&mut self.bootstrap, self.dir.path());
        merge(&mut self.bootstrap, self.bootstrap_last);
        let dir = self.dir;
        fs::create_dir_all(dir.path().join("logs")).unwrap();
        let config = dir.path().join("config.yaml");
        let mut resources = dir.path().join("apisix.yaml");
        fs::write(&config, self.bootstrap.to_string()).unwrap();
        write_atomically(&resources, &ended(&self.resources));
        if self.folder {
            resources = dir.path().join("resources");
        }
        let output = fs::File::create(dir.path().join("output.log")).unwrap();
        let mut command = match self.user {
            None => Command::new(program()),
            Some(user) => as_user(user, dir.path()),
        };
        let child = command
            .arg("run")
            .arg("--config")
            .arg(&config)
            .arg("--resources")
            .arg(&resources)
            .args(&self.args)
            .envs(self.env)
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .expect("the program is built with the tests");
        Gateway {
            addrs,
            dir,
            child,
            user: self.user,
        }
    }
}

/// Where the parts of one gateway listen.
#[derive(Debug, Clone, Copy)]
struct Addrs {
    http: SocketAddr,
    https: SocketAddr,
    metrics: SocketAddr,
    status: SocketAddr,
    control: SocketAddr,
}

impl Addrs {
    fn free() -> Self {
        let free = || SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free()));
        Self {
            http: free(),
            https: free(),
            metrics: free(),
            status: free(),
            control: free(),
        }
    }

    fn write_into(&self, bootstrap: &mut Value, dir: &Path) {
        let listen = |addr: SocketAddr| json!({ "ip": "127.0.0.1", "port": addr.port() });
        let own = json!({
            "apisix": {
                "node_listen": [listen(self.http)],
                "ssl": { "enable": true, "listen": [listen(self.https)] },
                "status": listen(self.status),
                "control": listen(self.control),
            },
            "plugin_attr": { "prometheus": {
                "export_addr": listen(self.metrics),
                "refresh_interval": 1,
            } },
            "claviger": {
                "pid_file": dir.join("claviger.pid"),
                "upgrade_sock": dir.join("upgrade.sock"),
            },
        });
        merge(bootstrap, own);
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    addrs: Addrs,
    dir: TempDir,
    child: Child,
    user: Option<u32>,
}

impl Gateway {
    /// A gateway with the harness's bootstrap and no resources yet.
    pub fn builder() -> Builder {
        let bootstrap = json!({
            "deployment": {
                "role": "data_plane",
                "role_data_plane": { "config_provider": "yaml" },
            },
            "apisix": { "enable_ipv6": false },
            "nginx_config": {
                "worker_processes": 1,
                "error_log": "logs/error.log",
                "error_log_level": "info",
                "http": { "access_log": "logs/access.log" },
            },
        });
        Builder {
            dir: tempfile::tempdir().unwrap(),
            resources: String::new(),
            bootstrap,
            bootstrap_last: json!({}),
            env: Vec::new(),
            args: Vec::new(),
            until: Until::Ready,
            folder: false,
            user: None,
        }
    }

    /// Starts with these resources and waits until ready.
    pub fn start(resources: impl Into<String>) -> Self {
        Self::builder().resources(resources).start()
    }

    /// Listener for plain HTTP.
    pub fn http(&self) -> SocketAddr {
        self.addrs.http
    }

    /// Listener for HTTPS.
    pub fn https(&self) -> SocketAddr {
        self.addrs.https
    }

    /// Prometheus listener.
    pub fn metrics(&self) -> SocketAddr {
        self.addrs.metrics
    }

    /// Status listener.
    pub fn status(&self) -> SocketAddr {
        self.addrs.status
    }

    /// Folder of the configuration.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The user it was started as, where that is not the test's.
    pub fn user(&self) -> Option<u32> {
        self.user
    }

    /// One request on a connection of its own, with `Host: <host>`.
    pub fn get(&self, host: &str, path: &str, headers: &[(&str, &str)]) -> Reply {
        let headers: Vec<_> = [("Host", host)].iter().chain(headers).copied().collect();
        client::get(self.http(), path, &headers)
    }

    /// A connection in the clear.
    pub fn connect(&self) -> Connection {
        Connection::open(self.http())
    }

    /// The Prometheus page.
    pub fn metrics_page(&self) -> String {
        let path = "/apisix/prometheus/metrics";
        client::get(self.metrics(), path, &[("Host", "metrics")]).text()
    }

    /// One sample of the Prometheus page, by its name and labels as they are written there.
    pub fn metric(&self, series: &str) -> Option<f64> {
        let page = self.metrics_page();
        page.lines().find_map(|line| {
            let (name, value) = line.rsplit_once(' ')?;
            (name == series).then(|| value.parse().ok())?
        })
    }

    /// Whether `/status/ready` answers 200.
    pub fn is_ready(&self) -> bool {
        answers_200(self.status(), "/status/ready")
    }

    /// Replaces the resources as an operator's tool would: a new file, renamed over the old one.
    pub fn write_resources(&self, yaml: &str) {
        write_atomically(&self.dir().join("apisix.yaml"), &ended(yaml));
    }

    /// Writes a file beside the configuration (mode 0600), replacing it in one step.
    pub fn write_file(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.dir().join(name);
        let fresh = self.dir().join(format!("{name}.new"));
        write_private(&fresh, content.as_ref());
        fs::rename(fresh, path).unwrap();
    }

    /// Everything the program has said: its output, error log and access log.
    pub fn log(&self) -> String {
        ["output.log", "logs/error.log", "logs/access.log"]
            .map(|name| fs::read_to_string(self.dir().join(name)).unwrap_or_default())
            .concat()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
    }

    /// The program with this gateway's files and these arguments, such as a successor.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(program());
        command
            .args(args)
            .arg("--config")
            .arg(self.dir().join("config.yaml"))
            .current_dir(self.dir())
            .stdin(Stdio::null());
        command
    }

    /// Waits until the program has ended.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "the program must end");
            std::thread::sleep(PAUSE);
        }
    }

    fn wait_for(&mut self, until: Until) {
        let path = match until {
            Until::Ready => "/status/ready",
            Until::Alive => "/status",
        };
        let deadline = Instant::now() + PATIENCE;
        while !answers_200(self.status(), path) {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("the program ended at once: {status}");
            }
            assert!(Instant::now() < deadline, "{path} must answer 200");
            std::thread::sleep(PAUSE);
        }
        // Alive comes before the configuration, and traffic after it.
        while until == Until::Alive && TcpStream::connect(self.http()).is_err() {
            assert!(Instant::now() < deadline, "the listener must accept");
            std::thread::sleep(PAUSE);
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        // By its own id; an error means that it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of the gateway\n{}---", self.log());
        }
    }
}

/// Looks until the condition holds; fails the test, saying what was awaited, when it never does.
pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "must come true: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Runs the program with these arguments to its end.
pub fn claviger(args: &[&str]) -> Output {
    Command::new(program())
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

/// The program under test.
pub fn program() -> PathBuf {
    env!("CARGO_BIN_EXE_claviger").into()
}

/// Any program that runs beside a test, such as `claviger echo`; killed when dropped.
pub struct Running(Child);

impl Running {
    /// Starts it.
    pub fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }

    /// What it says on standard output up to here, when that was piped.
    pub fn first_line(&mut self) -> String {
        let mut line = Vec::new();
        let out = self.0.stdout.as_mut().expect("standard output is piped");
        let mut byte = [0];
        while out.read(&mut byte).is_ok_and(|count| count == 1) && byte[0] != b'\n' {
            line.push(byte[0]);
        }
        String::from_utf8_lossy(&line).into_owned()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn answers_200(addr: SocketAddr, path: &str) -> bool {
    if TcpStream::connect(addr).is_err() {
        return false;
    }
    let mut connection = Connection::open(addr);
    connection.request("GET", path, &[("Host", "status")]);
    matches!(connection.reply(), Ok(Some(reply)) if reply.status == 200)
}

fn merge(under: &mut Value, over: Value) {
    match (under, over) {
        (Value::Object(under), Value::Object(over)) => {
            for (key, value) in over {
                merge(under.entry(key).or_insert(Value::Null), value);
            }
        }
        (under, over) => *under = over,
    }
}

fn ended(yaml: &str) -> String {
    match yaml.trim_end().ends_with("#END") {
        true => yaml.to_owned(),
        false => format!("{yaml}\n#END\n"),
    }
}

fn write_atomically(path: &Path, content: &str) {
    let fresh = path.with_extension("new");
    fs::write(&fresh, content).unwrap();
    fs::rename(fresh, path).unwrap();
}

fn write_private(path: &Path, content: &[u8]) {
    use std::io::Write as _;
    use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
    if let Some(folder) = path.parent() {
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(folder).unwrap();
    }
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).unwrap().write_all(content).unwrap();
}

/// The program, to be run by this user, who is given everything in the folder. The user may not
/// be able to reach the place it was built at, so it is copied.
fn as_user(user: u32, dir: &Path) -> Command {
    let copy = dir.join("claviger");
    fs::copy(program(), &copy).unwrap();
    let mut folders = vec![dir.to_owned()];
    while let Some(folder) = folders.pop() {
        chown(&folder, Some(user), Some(user)).unwrap();
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            chown(&path, Some(user), Some(user)).unwrap();
            if path.is_dir() {
                folders.push(path);
            }
        }
    }
    let mut command = Command::new(copy);
    command.uid(user).gid(user);
    command
}

const NOBODY: u32 = 65534;
