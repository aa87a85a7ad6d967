//! What others may see of the process: its environment, its arguments, its memory.

use std::io::Read as _;
use std::os::unix::process::CommandExt as _;

use super::*;

/// `$env://`, `${{…}}` and `nginx_config.envs` still have their values, and nothing shows them:
/// not to root either, whom no permission keeps out of `/proc`.
#[test]
fn values_of_the_environment_are_used_and_cannot_be_read() {
    let upstream = Upstream::start(Behaviour::ok());
    let resources = |more: &str| {
        format!(
            r#"
consumers:
  - {{ username: env, plugins: {{ key-auth: {{ key: $env://KEY_OF_TEST }} }} }}
  - {{ username: text, plugins: {{ key-auth: {{ key: '${{{{TEXT_OF_TEST}}}}' }} }} }}
{more}routes:
  - {{ id: r, host: a.test, uri: /*, plugins: {{ key-auth: {{}} }}, upstream: {{ type: roundrobin, nodes: {{ "{}": 1 }} }} }}
"#,
            upstream.addr
        )
    };
    let start = |bootstrap: &str| {
        Gateway::builder()
            .bootstrap(bootstrap)
            .bootstrap(AUDIT)
            .env("KEY_OF_TEST", &marked("env"))
            .env("TEXT_OF_TEST", &marked("text"))
            .env("LATE_OF_TEST", &marked("late"))
            .env("TZ", "Europe/Berlin")
            .resources(resources(""))
            .start()
    };
    let status = |gateway: &Gateway, name: &str| {
        let key = marked(name);
        gateway.get("a.test", "/", &[("apikey", &key)]).status
    };
    let shown = |gateway: &Gateway| {
        ["environ", "cmdline", "status", "stat"]
            .map(|file| fs::read(format!("/proc/{}/{file}", gateway.pid())).unwrap_or_default())
            .concat()
    };
    let gateway = start("{}");
    for name in ["env", "text"] {
        assert_eq!(status(&gateway, name), 200, "{name}");
    }
    let scanner = Scanner::new(&[]);
    scanner.assert_clean("/proc", shown(&gateway));
    let text = String::from_utf8_lossy(&shown(&gateway)).into_owned();
    if rustix::process::getuid().is_root() {
        assert!(text.contains("KEY_OF_TEST="), "names may stay: {text}");
        assert!(text.contains("TZ=Europe/Berlin"), "libraries read it");
    }
    // A later configuration may ask for what nobody asked for at the start.
    let late = "  - { username: late, plugins: { key-auth: { key: $env://LATE_OF_TEST } } }\n  - { username: later, plugins: { key-auth: { key: 'x${{LATE_OF_TEST}}' } } }\n";
    gateway.write_resources(&resources(late));
    wait_until("the late variable is used", || {
        status(&gateway, "late") == 200
    });
    let substituted = format!("x{}", marked("late"));
    assert_eq!(
        gateway
            .get("a.test", "/", &[("apikey", &substituted)])
            .status,
        200
    );
    scanner.assert_clean("/proc", shown(&gateway));
    let env = [
        ("KEY_OF_TEST", "env"),
        ("TEXT_OF_TEST", "text"),
        ("LATE_OF_TEST", "late"),
    ];
    let env = env.map(|(name, value)| (name, marked(value)));
    let env: Vec<_> = env.iter().map(|(name, value)| (*name, &**value)).collect();
    for command in COMMANDS {
        let text = said(&gateway, "apisix.yaml", command, &env);
        scanner.assert_clean(&command.join(" "), text);
    }
    assert_quiet(&gateway, &scanner, "configuration");
    scanner.assert_clean("`audit verify`", audit_verdict(&gateway, &env));

    let open = start("claviger: { allow_core_dump: true }");
    assert_eq!(status(&open, "env"), 200);
    assert!(!scanner.findings(&shown(&open)).is_empty(), "the control");
}

/// A crash leaves no core, though the limit it was started with allows one.
#[test]
fn a_crash_leaves_no_core() {
    use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
    use std::os::unix::process::ExitStatusExt as _;
    let maximum = getrlimit(Resource::Core).maximum;
    let raised = Rlimit {
        current: maximum,
        maximum,
    };
    // The program inherits it. Under nextest a test has a process of its own.
    setrlimit(Resource::Core, raised).unwrap();
    let crash = |bootstrap: &str| {
        let mut gateway = Gateway::builder().bootstrap(bootstrap).start();
        gateway.signal(Signal::ABORT);
        let status = gateway.wait_exit();
        assert_eq!(status.signal(), Some(6), "it must have crashed");
        status.core_dumped()
    };
    assert!(!crash("{}"), "a core was written");
    // The control, where the machine writes cores into the working directory.
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").unwrap_or_default();
    let writes = pattern.trim().starts_with("core") && maximum != Some(0);
    let open = "claviger: { allow_core_dump: true }";
    assert_eq!(writes, writes && crash(open), "{pattern}");
}

#[test]
fn the_running_process_cannot_be_dumped_or_read() {
    let mut gateway = Gateway::builder()
        .env("SECRET_OF_TEST", &marked("env"))
        .unprivileged()
        .start();
    let pid = gateway.pid();
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits
        .lines()
        .find(|line| line.starts_with("Max core file size"))
        .expect("there is a limit of core files");
    let words: Vec<_> = core.split_whitespace().collect();
    assert_eq!(&words[4..6], ["0", "0"], "{core}");
    // Another process of the same user, as a debugger would be.
    let status = fs::metadata(format!("/proc/{pid}/environ")).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&status),
        0,
        "what cannot be dumped belongs to root in /proc"
    );
    for file in ["environ", "mem", "maps"] {
        let mut cat = Command::new("cat");
        cat.arg(format!("/proc/{pid}/{file}"));
        if let Some(user) = gateway.user() {
            cat.uid(user).gid(user);
        }
        let output = cat.output().unwrap();
        assert!(!output.status.success(), "/proc/{pid}/{file} is readable");
        assert!(output.stdout.is_empty());
    }
    // The control: without the hardening it can be read.
    gateway.signal(rustix::process::Signal::KILL);
    gateway.wait_exit();
    let open = Gateway::builder()
        .bootstrap("claviger: { allow_core_dump: true }")
        .env("SECRET_OF_TEST", &marked("env"))
        .unprivileged()
        .start();
    let mut environ = Vec::new();
    fs::File::open(format!("/proc/{}/environ", open.pid()))
        .and_then(|mut file| file.read_to_end(&mut environ))
        .expect("a process of the same user can be read");
    let status = fs::metadata(format!("/proc/{}/environ", open.pid())).unwrap();
    assert_eq!(
        std::os::unix::fs::MetadataExt::uid(&status),
        open.user().unwrap_or(rustix::process::getuid().as_raw()),
    );
    assert!(memchr::memmem::find(&environ, MARK.as_bytes()).is_some());
}

/// What a failed `expect` would print, or anything that prints with `{:?}`: of no type that holds
/// a secret is that the value.
#[test]
fn panics_and_debug_output_hold_no_value() {
    use claviger::secrets::manager::FieldValue;
    use claviger::secrets::{ManagerSpec, Resolved, Secret, SecretsSettings, View};
    let secret = || Secret::from(marked("value"));
    let resolved = Resolved::new(&secret(), 1);
    let outcome = Ok(resolved.clone());
    let view = View::new([("$env://A".into(), outcome)].into());
    let spec = ManagerSpec {
        id: "vault/main".into(),
        kind: "vault".to_owned(),
        fields: json!({"token": marked("token")}),
    };
    let settings = SecretsSettings {
        env: vec![("A".to_owned(), secret().seal())],
        ..SecretsSettings::default()
    };
    let issued = certs::server(&Authority::new().unwrap(), &["a.test"]);
    let scanner = Scanner::new(&[certs::key_text(&issued)]);
    let printed = [
        format!("{:?} {:#?}", secret(), FieldValue::Text(secret())),
        format!("{resolved:?} {view:?} {spec:?} {settings:?}"),
        format!("{:?}", issued.key_pem),
    ];
    scanner.assert_clean("debug output", printed.concat());
    let refuse = || -> Result<(), Secret> { Err(secret()) };
    let panic = std::panic::catch_unwind(|| refuse().expect("a value"));
    let payload = panic.unwrap_err();
    let message = payload.downcast_ref::<String>().expect("a text");
    assert!(message.starts_with("a value: Secret("), "{message}");
    scanner.assert_clean("a panic", message);
}
