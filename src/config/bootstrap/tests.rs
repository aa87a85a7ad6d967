//! `config.yaml`, decoded.

use std::sync::Arc;
use std::time::Duration;

use super::*;

fn env(name: &str) -> Option<String> {
    (name == "PORT").then(|| "8443".to_owned())
}

fn read(text: &str) -> (Bootstrap, Vec<Diagnostic>) {
    let file: Arc<str> = "config.yaml".into();
    Bootstrap::parse(text, &file, &env).expect("is accepted")
}

fn refused(text: &str) -> Vec<String> {
    let file: Arc<str> = "config.yaml".into();
    let diagnostics = Bootstrap::parse(text, &file, &env).expect_err("is refused");
    diagnostics.iter().map(ToString::to_string).collect()
}

fn addresses(list: &[SocketAddr]) -> Vec<String> {
    list.iter().map(ToString::to_string).collect()
}

#[test]
fn an_empty_file_is_the_defaults() {
    for text in ["", "#END", "{}", "apisix:\nnginx_config: ~"] {
        let (bootstrap, diagnostics) = read(text);
        assert_eq!(bootstrap, Bootstrap::default(), "{text}");
        assert!(diagnostics.is_empty());
    }
}

#[test]
fn listeners_take_all_forms_and_both_families() {
    let (bootstrap, _) = read("apisix: {node_listen: 80}");
    assert_eq!(
        addresses(&bootstrap.http_listeners()),
        ["0.0.0.0:80", "[::]:80"]
    );
    assert_eq!(
        addresses(&bootstrap.https_listeners()),
        ["0.0.0.0:9443", "[::]:9443"]
    );
    let (bootstrap, _) = read(
        "apisix:\n  enable_ipv6: false\n  node_listen: [80, {ip: 127.0.0.2, port: 81}, {port: 80}, {ip: '::1', port: 82}]\n  ssl: {listen: [{port: \"${{PORT}}\"}]}",
    );
    assert_eq!(
        addresses(&bootstrap.http_listeners()),
        ["0.0.0.0:80", "127.0.0.2:81", "[::1]:82"]
    );
    assert_eq!(addresses(&bootstrap.https_listeners()), ["0.0.0.0:8443"]);
    let (bootstrap, _) = read("apisix: {ssl: {enable: false}}");
    assert!(bootstrap.https_listeners().is_empty());
}

#[test]
fn settings_replace_defaults_one_by_one() {
    let (bootstrap, diagnostics) = read(
        "deployment: {role: data_plane, role_data_plane: {config_provider: json}}
apisix:
  router: {http: radixtree_uri_with_parameter}
  dns_resolver: [1.1.1.1, '8.8.8.8:5353', '::1']
  status: {ip: 0.0.0.0}
  trusted_addresses: [10.0.0.0/8, 127.0.0.1]
  lru: {secret: {ttl: 5}}
  ssl: {ssl_protocols: TLSv1.3, fallback_sni: A.test}
nginx_config:
  worker_processes: 4
  worker_shutdown_timeout: 1m
  envs: [HOME, A=b=c]
  http: {client_max_body_size: 8m, underscores_in_headers: 'off', real_ip_from: ['unix:', 10.0.0.1], upstream: {keepalive: 5}}
plugins: [key-auth]
plugin_attr: {prometheus: {export_addr: {port: 9200}}, redirect: {https_port: 443}}
claviger: {limits: {header_bytes: 64k}, secrets: {load_wait: 1500ms}, threads: 2}",
    );
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    assert_eq!(bootstrap.apisix.router_http, HttpRouter::UriWithParameter);
    assert_eq!(
        addresses(&bootstrap.apisix.dns_resolver),
        ["1.1.1.1:53", "8.8.8.8:5353", "[::1]:53"]
    );
    assert_eq!(
        bootstrap
            .apisix
            .status
            .map(|status| status.to_string())
            .as_deref(),
        Some("0.0.0.0:7085")
    );
    assert_eq!(bootstrap.apisix.lru_secret.ttl, Duration::from_secs(5));
    assert_eq!(bootstrap.apisix.lru_secret.neg_ttl, Duration::from_secs(60));
    assert_eq!(bootstrap.apisix.ssl.ssl_protocols, ["TLSv1.3"]);
    assert_eq!(bootstrap.apisix.ssl.fallback_sni.as_deref(), Some("a.test"));
    assert_eq!(bootstrap.threads(), Some(2));
    assert_eq!(
        bootstrap.nginx_config.worker_shutdown_timeout,
        Duration::from_secs(60)
    );
    assert_eq!(
        bootstrap.nginx_config.envs,
        [("A".to_owned(), "b=c".to_owned())]
    );
    assert_eq!(bootstrap.nginx_config.http.client_max_body_size, 8 << 20);
    assert!(!bootstrap.nginx_config.http.underscores_in_headers);
    assert_eq!(bootstrap.nginx_config.http.real_ip_from.len(), 1);
    assert_eq!(
        bootstrap.nginx_config.http.upstream.keepalive_requests,
        1000
    );
    let prometheus = bootstrap
        .plugin_attr
        .find("prometheus")
        .expect("has defaults");
    assert_eq!(
        prometheus["export_addr"],
        serde_json::json!({"ip": "127.0.0.1", "port": 9200})
    );
    assert!(bootstrap.plugin_attr.find("redirect").is_some());
    assert_eq!(bootstrap.claviger.limits.header_bytes, 65536);
    assert_eq!(bootstrap.claviger.limits.header_count, 100);
    assert_eq!(
        bootstrap.claviger.secrets.load_wait,
        Duration::from_millis(1500)
    );
    assert_eq!(bootstrap.resources_path(), PathBuf::from("apisix.json"));
}

#[test]
fn a_clash_of_types_stops_the_start_and_names_the_place() {
    for (text, expected) in [
        (
            "apisix:\n  ssl: yes-please",
            "config.yaml:2:8: error[wrong-type] apisix.ssl: failed to merge, path[apisix.ssl] expect: object, but got: string",
        ),
        (
            "apisix: {enable_ipv6: 1}",
            "config.yaml:1:23: error[wrong-type] apisix.enable_ipv6: failed to merge, path[apisix.enable_ipv6] expect: true or false, but got: number",
        ),
        (
            "plugin_attr: {prometheus: {export_addr: 9091}}",
            "config.yaml:1:27: error[merge] plugin_attr.prometheus: failed to merge, path[plugin_attr.prometheus.export_addr] expect: table, but got: number",
        ),
        (
            "[1]",
            "config.yaml:1:1: error[wrong-type]: failed to merge, path[] expect: object, but got: list",
        ),
        (
            "a: ${{NONE}}",
            "config.yaml:1:4: error[unset-variable]: can't find environment variable NONE",
        ),
        (
            "a: [",
            "config.yaml:2:1: error[syntax]: while parsing a node, did not find expected node content",
        ),
        (
            "apisix: {node_listen: 70000}",
            "config.yaml:1:23: error[invalid-value] apisix.node_listen: expected an integer from 1 to 65535",
        ),
        (
            "nginx_config: {http: {send_timeout: soon}}",
            "config.yaml:1:37: error[invalid-value] nginx_config.http.send_timeout: expected a duration such as 500ms, 60s, 5m or 1h30m, at most 36500d",
        ),
    ] {
        assert_eq!(refused(text), [expected]);
    }
}

#[test]
fn unknown_keys_are_findings_only_where_they_are_ours() {
    let (_, diagnostics) =
        read("foo: 1\napisix: {extra_lua_path: x}\nclaviger: {limits: {heder_bytes: 1}}");
    let fields: Vec<&str> = diagnostics.iter().map(|found| &*found.field).collect();
    assert_eq!(fields, ["claviger.limits.heder_bytes"]);
}

#[test]
fn the_shipped_file_is_the_defaults_and_has_no_findings() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/config.yaml");
    let (bootstrap, diagnostics) = Bootstrap::load(&path).expect("is accepted");
    assert!(diagnostics.is_empty(), "{diagnostics:?}");
    let expected = Bootstrap {
        path: path.clone(),
        ..Bootstrap::default()
    };
    assert_eq!(bootstrap, expected);
    assert_eq!(
        bootstrap.resources_path(),
        path.with_file_name("apisix.yaml")
    );
}

#[test]
fn references_stand_only_where_they_are_resolved() {
    for field in [
        "apisix: {ssl: {fallback_sni: $env://NAME}}",
        "apisix: {node_listen: $env://PORT}",
        "apisix: {ssl: {listen: [{ip: $SECRET://a/b/c}]}}",
        "nginx_config: {error_log: $secret://file/a/b}",
        "plugins: [key-auth, $env://PLUGIN]",
        "claviger: {pid_file: $ENV://PID}",
        "claviger: {log: {redact_args: [$env://NAME]}}",
    ] {
        let findings = refused(field);
        let told = findings.iter().any(|found| found.contains("bad-reference"));
        assert!(told, "{field}: {findings:?}");
    }
    // What nobody reads may hold anything, and part of a text is no reference.
    for text in [
        "deployment: {etcd: {password: $env://ETCD}}",
        "apisix: {data_encryption: {keyring: [$env://KEY]}}",
        "nginx_config: {envs: [TOKEN=$env://X]}",
        "claviger: {resources: conf/$env://X}",
    ] {
        let (bootstrap, _) = read(text);
        assert!(bootstrap.declared().settings.is_empty(), "{text}");
    }
}

#[test]
fn what_resources_share_is_told_with_its_place() {
    let text = r"
claviger:
  secrets:
    managers:
      - {id: vault/main, uri: http://v, token: hunter2}
      - {id: file/main, path: /run/secrets}
plugin_attr:
  redirect: {https_port: $env://PORT}
  zipkin: {x: 1}
apisix: {ssl: {ssl_trusted_certificate: $secret://vault/main/ca/pem}}
deployment: {admin: {admin_key: [{name: admin, key: $secret://file/main/admin}]}}
";
    let (bootstrap, _) = read(text);
    let declared = bootstrap.declared();
    let managers = declared.managers.iter();
    let managers: Vec<_> = managers.map(|item| (&*item.id, item.place.line)).collect();
    assert_eq!(managers, [("vault/main", 5), ("file/main", 6)]);
    let settings = declared.settings.iter();
    let mut settings: Vec<_> = settings.map(|item| (&*item.id, item.place.line)).collect();
    settings.sort_unstable();
    let expected = [
        ("apisix.ssl.ssl_trusted_certificate", 10),
        ("deployment.admin", 11),
        ("plugin_attr.redirect", 8),
    ];
    assert_eq!(settings, expected);
    assert!(
        !format!("{bootstrap:?}").contains("hunter2"),
        "no token is printed"
    );
    for (managers, code) in [
        (
            "[{id: vault/a, uri: x}, {id: vault/a, uri: y}]",
            "duplicate-id",
        ),
        ("[{id: vault}]", "invalid-id"),
        ("[{uri: x}]", "missing-field"),
        ("[vault/a]", "wrong-type"),
    ] {
        let findings = refused(&format!("claviger: {{secrets: {{managers: {managers}}}}}"));
        assert!(findings[0].contains(code), "{managers}: {findings:?}");
    }
}

/// Added to a time it overflowed, and the secrets ended with a panic at the first value.
#[test]
fn a_duration_that_no_clock_can_say_is_refused() {
    for text in ["9223372036854775807", "1e18", "36501d"] {
        let found = refused(&format!(
            "claviger: {{secrets: {{max_stale: {text}}}}}\napisix: {{lru: {{secret: {{ttl: {text}}}}}}}"
        ));
        let wrong = found
            .iter()
            .filter(|found| found.ends_with("at most 36500d"));
        assert_eq!(wrong.count(), 2, "{text}: {found:?}");
    }
    let (bootstrap, _) = read("claviger: {secrets: {max_stale: 36500d}}");
    let longest = bootstrap.claviger.secrets.max_stale;
    assert_eq!(longest.as_secs(), 36_500 * 86_400);
}

#[test]
fn ports_behind_the_proxy_protocol_say_whom_they_believe() {
    let ports = "apisix: {proxy_protocol: {listen_http_port: 81, listen_https_port: 444}}";
    let (open, found) = read(ports);
    let http = addresses(&open.proxied_http_listeners());
    assert_eq!(http, ["0.0.0.0:81", "[::]:81"]);
    let https = addresses(&open.proxied_https_listeners());
    assert_eq!(https, ["0.0.0.0:444", "[::]:444"]);
    assert_eq!(open.claviger.proxy_protocol.trusted, None);
    let [warning] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(warning.code, "proxy-protocol-open");
    assert_eq!(warning.field, "apisix.proxy_protocol");
    for (trusted, count) in [("[]", 0), ("[10.0.0.0/8, '::1']", 2)] {
        let own = format!("{ports}\nclaviger: {{proxy_protocol: {{trusted: {trusted}}}}}");
        let (closed, found) = read(&own);
        let trusted = closed.claviger.proxy_protocol.trusted.expect("a list");
        assert_eq!((trusted.len(), found.len()), (count, 0));
    }
    refused("claviger: {proxy_protocol: {trusted: [everybody]}}");
    let (_, found) = read("claviger: {proxy_protocol: {trust: []}}");
    assert_eq!(found[0].code, "unknown-field");

    let (off, found) = read(&format!(
        "{}, ssl: {{enable: false}}}}",
        &ports[..ports.len() - 1]
    ));
    assert!(off.proxied_https_listeners().is_empty());
    assert_eq!(found[0].code, "no-effect");
    let (_, found) =
        read("apisix: {proxy_protocol: {enable_tcp_pp: true, enable_tcp_pp_to_upstream: false}}");
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].code, "unsupported");
}
