//! Whole texts: what is refused whole, what is isolated, how items are joined.

use super::*;

fn env() -> SharedEnv {
    Arc::new(|name| (name == "URI").then(|| "/from-env".to_owned()))
}

fn read(text: &str) -> Documents {
    parse(text, &"a.yaml".into(), &env()).expect("is accepted")
}

fn refused(text: &str) -> String {
    let diagnostic = parse(text, &"a.yaml".into(), &env()).expect_err("is refused");
    diagnostic.to_string()
}

fn messages(documents: &Documents) -> Vec<String> {
    documents
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn ids(documents: &Documents) -> Vec<&str> {
    documents.routes.iter().map(|route| &*route.id).collect()
}

#[test]
fn text_that_is_not_yaml_is_refused_with_its_place() {
    for (text, expected) in [
        ("routes:\n  - id: 'a", "a.yaml:2:9: error[syntax]: "),
        ("routes:\n  - {id: a", "a.yaml:3:1: error[syntax]: "),
        ("routes:\n\t- id: a", "a.yaml:2:"),
        ("routes:\n  - id: a\n   uri: x", "a.yaml:3:"),
        ("routes: \0", "a.yaml:1:9: error[syntax]: NUL character"),
        (
            "routes: \u{7}",
            "a.yaml:1:9: error[syntax]: control character",
        ),
        (
            "- a",
            "a.yaml:1:1: error[syntax]: expected a map of resource lists at the top level",
        ),
        (
            "text",
            "a.yaml:1:1: error[syntax]: expected a map of resource lists at the top level",
        ),
        (
            "a: 1\n---\nb: 2",
            "a.yaml:2:1: error[syntax]: expected one document, found a second",
        ),
        ("routes: *nowhere", "a.yaml:1:9: error[syntax]: "),
        (
            "a: ${{UNSET}}",
            "a.yaml:1:4: error[unset-variable]: can't find environment variable UNSET",
        ),
        (
            "",
            "a.yaml: error[syntax]: file is empty; an empty configuration is a file that holds #END",
        ),
        (
            " \n",
            "a.yaml: error[syntax]: file is empty; an empty configuration is a file that holds #END",
        ),
        (
            "? [a]\n: b",
            "a.yaml:1:3: error[syntax]: expected a scalar as key",
        ),
        (
            "x-a: {<<: 5}",
            "a.yaml:1:11: error[syntax]: expected a map or a list of maps behind <<",
        ),
    ] {
        let message = refused(text);
        assert!(message.starts_with(expected), "{text:?}: {message}");
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_place() {
    let file: Arc<str> = "a.yaml".into();
    let place = |bytes: &'static [u8]| utf8(bytes, &file).map_err(|found| found.to_string());
    assert_eq!(place(b"\xef\xbb\xbfa: 1"), Ok("a: 1"));
    assert_eq!(
        place(b"a: 1\nb: \xff"),
        Err("a.yaml:2:4: error[syntax]: expected UTF-8".into())
    );
    assert_eq!(
        place(b"\xff\xfea\0"),
        Err("a.yaml:1:1: error[syntax]: expected UTF-8, found UTF-16".into())
    );
}

#[test]
fn nothing_of_the_file_stands_in_a_refusal() {
    for text in [
        "routes: [{key: hunter2",
        "routes: [{key: \"hunter2\\q\"}]",
        "a: `hunter2",
        "a: !!int hunter2\nb: @hunter2",
        "hunter2: hunter2: hunter2",
    ] {
        let message = refused(text);
        assert!(
            !message.contains("hunter2") && !message.contains('`') && !message.contains('@'),
            "{message}"
        );
    }
}

#[test]
fn nesting_and_aliases_are_bounded() {
    let deep = format!("routes: {}{}", "[".repeat(200), "]".repeat(200));
    assert!(
        refused(&deep).contains("nested deeper than 128 levels"),
        "{}",
        refused(&deep)
    );
    let block: String = (0..200).map(|i| format!("{}a:\n", " ".repeat(i))).collect();
    assert!(refused(&block).contains("nested deeper than 128 levels"));
    let mut laughs = String::from("x0: &x0 [a, a, a, a, a, a, a, a, a, a]\n");
    for i in 1..9 {
        let aliases = vec![format!("*x{}", i - 1); 10].join(", ");
        laughs.push_str(&format!("x{i}: &x{i} [{aliases}]\n"));
    }
    assert!(refused(&laughs).contains("aliases expand to more than 1000000 values"));
    let mut chain = String::from("x0: &x0 [a]\n");
    for i in 1..500 {
        chain.push_str(&format!("x{i}: &x{i} [*x{}]\n", i - 1));
    }
    assert!(refused(&chain).contains("nested deeper than 128 levels"));
}

#[test]
fn anchors_and_merge_keys_work() {
    let documents = read(
        "x-base: &base {service_id: 1, methods: [GET]}
x-more: &more {service_id: 2, priority: 5}
x-list: &list [{uri: /l, service_id: 1}]
routes:
- {<<: [*base, *more], uri: /a}
- {<<: *base, uri: /b, methods: [PUT]}
services: *list
",
    );
    let route = &documents.routes[0].value;
    assert_eq!(
        (route.service_id.as_deref(), route.priority),
        (Some("1"), 5)
    );
    assert_eq!(documents.routes[1].value.methods, ["PUT"]);
    assert_eq!(
        messages(&documents),
        [
            "a.yaml:3:17: error[unknown-field] services/arr_1 uri: additional properties forbidden, found uri",
            "a.yaml:3:26: error[unknown-field] services/arr_1 service_id: additional properties forbidden, found service_id"
        ]
    );
}

#[test]
fn scalars_are_typed_as_apisix_users_expect() {
    use Tree::{Bool, Float, Int, Null, Text};
    for (text, expected) in [
        ("1", Int(1)),
        ("-1", Int(-1)),
        ("+5", Int(5)),
        ("0", Int(0)),
        ("0x1f", Int(31)),
        ("1.5", Float(1.5)),
        ("1e3", Float(1000.0)),
        (".5", Float(0.5)),
        ("0123", Text("0123".into())),
        ("1_000", Text("1_000".into())),
        ("1.2.3", Text("1.2.3".into())),
        ("127.0.0.1", Text("127.0.0.1".into())),
        ("-", Text("-".into())),
        (".", Text(".".into())),
        ("+", Text("+".into())),
        ("2026-01-01", Text("2026-01-01".into())),
        (".inf", Text(".inf".into())),
        ("1e999", Text("1e999".into())),
        ("12:30", Text("12:30".into())),
        ("0x", Text("0x".into())),
        ("e5", Text("e5".into())),
        ("99999999999999999999", Float(1e20)),
        ("true", Bool(true)),
        ("FALSE", Bool(false)),
        ("yes", Text("yes".into())),
        ("on", Text("on".into())),
        ("null", Null),
        ("~", Null),
        ("", Null),
    ] {
        assert_eq!(
            crate::config::scalar::plain(text.to_owned()),
            expected,
            "{text}"
        );
    }
    let (node, _) =
        yaml::parse("a: '1'\nb: \"true\"\nc: !!str 1\nd: |\n  1\ne: !!int '7'\nf: null\n'g': ''")
            .expect("is YAML");
    let tree = |key| node.find(key).map(|node| node.tree.clone());
    assert_eq!(tree("a"), Some(Text("1".into())));
    assert_eq!(tree("b"), Some(Text("true".into())));
    assert_eq!(tree("c"), Some(Text("1".into())));
    assert_eq!(tree("d"), Some(Text("1\n".into())));
    assert_eq!(tree("e"), Some(Int(7)));
    assert_eq!(tree("f"), Some(Null));
    assert_eq!(tree("g"), Some(Text(String::new())));
}

const UNREAD: &str = "its hosts or paths cannot be read, so it refuses nothing: \
    a broader route may answer what it was written for";

#[test]
fn one_bad_item_leaves_its_neighbours_alone() {
    let documents = read(
        "routes:\n- {id: a, uri: /a, service_id: 1}\n- {id: b, uri: 5, service_id: 1}\n- 7\n- {uri: /d, service_id: 1}\n",
    );
    assert_eq!(ids(&documents), ["a", "arr_4"]);
    assert_eq!(documents.routes[1].index, 3);
    assert_eq!(
        messages(&documents),
        [
            format!("a.yaml:3:3: error[guards-nothing] routes/b: {UNREAD}"),
            "a.yaml:3:16: error[wrong-type] routes/b uri: expected a string, found a number".into(),
            "a.yaml:4:3: error[wrong-type] routes/arr_3: it should be an object".into(),
            format!("a.yaml:4:3: error[guards-nothing] routes/arr_3: {UNREAD}"),
        ]
    );
}

#[test]
fn wrong_shapes_of_lists_are_findings() {
    let documents = read("routes: {a: 1}\nservices:\nupstreams: {}\nconsumers: text\nplugins:\n");
    assert_eq!(
        documents.plugins,
        Some(Vec::new()),
        "present but empty enables none"
    );
    assert_eq!(
        messages(&documents),
        [
            "a.yaml:1:9: error[wrong-type] routes: expected a list, found an object".to_owned(),
            "a.yaml:4:12: error[wrong-type] consumers: expected a list, found a string".to_owned()
        ]
    );
}

#[test]
fn the_plugin_list_is_read() {
    assert_eq!(read("routes: []").plugins, None);
    let documents = read(
        "plugins: [{name: key-auth}, {name: mqtt-proxy, stream: true}, {name: cors, stream: false}]",
    );
    assert_eq!(
        documents.plugins,
        Some(vec!["key-auth".to_owned(), "cors".to_owned()])
    );
    let documents = read("plugins: [{nam: a}, 5]");
    assert_eq!(documents.diagnostics.len(), 3, "{:?}", messages(&documents));
}

#[test]
fn a_later_item_takes_the_position_of_the_earlier_one() {
    let documents = read(
        "routes: [{id: 1, uri: /a, service_id: 1}, {id: 2, uri: /b, service_id: 1}, {id: '1', uri: /c, service_id: 1}]",
    );
    assert_eq!(ids(&documents), ["1", "2"]);
    assert_eq!(documents.routes[0].value.uris, ["/c"]);
    assert_eq!(
        messages(&documents),
        [
            "a.yaml:1:76: warning[duplicate-id] routes/1: the id stands already at a.yaml:1:10; this later item is taken"
        ]
    );
    let documents =
        read("routes: [{id: 1, uri: /a, service_id: 1}, {id: 1, uri: 5, service_id: 1}]");
    assert!(
        documents.routes.is_empty(),
        "what was to be replaced does not live on"
    );
}

#[test]
fn duplicate_keys_are_found_in_small_and_large_maps() {
    let documents = read(
        "routes:\n- {id: 1, uri: /a, uri: /b, service_id: 1}\nroutes:\n- {id: 2, uri: /c, service_id: 1}",
    );
    assert_eq!(ids(&documents), ["2"]);
    assert_eq!(
        messages(&documents),
        [
            "a.yaml:3:1: error[duplicate-key]: key routes stands twice; the earlier list is not in force"
        ]
    );
    let labels: String = (0..40).map(|i| format!("l{i}: v, ")).collect();
    let documents = read(&format!(
        "routes:\n- {{id: 1, uri: /a, service_id: 1, labels: {{{labels}l39: w, l3: w}}}}"
    ));
    assert_eq!(documents.diagnostics.len(), 2, "{:?}", messages(&documents));
    assert_eq!(
        documents.routes[0]
            .value
            .labels
            .as_ref()
            .expect("has labels")["l39"],
        "w"
    );
}

#[test]
fn variables_are_put_into_raw_text() {
    let documents = read("routes: [{uri: ${{URI}}, service_id: ${{ID:=12}}}] # ${{URI}}");
    assert_eq!(documents.routes[0].value.uris, ["/from-env"]);
    assert_eq!(documents.routes[0].value.service_id.as_deref(), Some("12"));
}

#[test]
fn equal_content_has_an_equal_fingerprint_wherever_it_stands() {
    let one = read("routes:\n- {id: 1, uri: /a, service_id: 1}");
    let same = read("# moved\nroutes:\n- id: 1\n  uri: '/a'\n  service_id: 1");
    let other = read("routes:\n- {id: 1, uri: /a, service_id: 2}");
    assert_eq!(one.routes[0].fingerprint, same.routes[0].fingerprint);
    assert_ne!(one.routes[0].fingerprint, other.routes[0].fingerprint);
}

#[test]
fn the_end_marker_stands_last_on_a_line_of_its_own() {
    for (text, expected) in [
        ("a\n#END", true),
        ("a\n#END\n", true),
        ("#END", true),
        ("a\n#END \r\n\n", true),
        ("a\n#END\n\n\n\n\n\n\n", false),
        ("a #END", false),
        ("a\n#END x", false),
        ("", false),
        ("a\n#EN", false),
    ] {
        assert_eq!(has_end_marker(text.as_bytes()), expected, "{text:?}");
    }
}

#[test]
fn fields_are_found_again() {
    let text = "routes:
  - id: a
    uri: /a
    upstream:
      nodes:
        # a comment
        127.0.0.1:80: 1
    plugins:
      key-auth:
        header: x
      ip-restriction:
        whitelist:
          - 10.0.0.1
          - 10.0.0.2
  - {id: b, uri: /b, plugins: {cors: {allow: 1}}}
  - {id: c, name: é, uri: /é, service_id: 1, plugins: {cors: {allow: 1}}}
";
    let documents = read(text);
    let [a, b, c] = [0, 1, 2].map(|index| &documents.routes[index].place);
    for (item, field, line, column) in [
        (a, "", 2, 5),
        (a, "uri", 3, 5),
        (a, "upstream.nodes.127.0.0.1:80", 7, 9),
        (a, "plugins.key-auth.header", 10, 9),
        (a, "plugins.key-auth.missing", 9, 7),
        (a, "plugins.ip-restriction.whitelist.1", 14, 13),
        (a, "nothing", 2, 5),
        (b, "plugins.cors.allow", 15, 39),
        (c, "plugins.cors.allow", 16, 63),
    ] {
        let place = documents.places.locate(item, field);
        assert_eq!((place.line, place.column), (line, column), "{field}");
    }
    documents.places.release();
    let documents = read("routes: [{id: é}, {id: 2, uri: /b, service_id: 1}]");
    let item = &documents.routes[0].place;
    assert_eq!(item.column, 19);
    assert_eq!(
        documents.places.locate(item, "uri").column,
        27,
        "columns count characters"
    );
    let documents = read(
        "routes: [{id: 1, name: \"a}\\\"]\", desc: 'it''s ]', labels: {a: it's}, # }
 uri: /b, service_id: 1}, {id: 2}]",
    );
    let place = documents.places.locate(&documents.routes[0].place, "uri");
    assert_eq!(
        (place.line, place.column),
        (2, 2),
        "brackets in strings and comments do not count"
    );
}

#[test]
fn json_is_read_with_places() {
    let file: Arc<str> = "a.json".into();
    let read = |text: &str| parse(text, &file, &env());
    let documents =
        read("{\n  \"routes\": [\n    {\"id\": \"1\", \"uri\": 5, \"service_id\": \"1\"}\n  ]\n}")
            .expect("is JSON");
    assert_eq!(
        messages(&documents),
        [
            format!("a.json:3:5: error[guards-nothing] routes/1: {UNREAD}"),
            "a.json:3:24: error[wrong-type] routes/1 uri: expected a string, found a number".into(),
        ]
    );
    let documents = read(r#"{"routes": [{"id": "1", "uri": "/\ud83d\ude00", "service_id": "1"}]}"#)
        .expect("is JSON");
    assert_eq!(documents.routes[0].value.uris, ["/\u{1f600}"]);
    for (text, expected) in [
        (
            "{\"routes\": [",
            "a.json:1:12: error[syntax]: unexpected end of file",
        ),
        ("", "a.json:1:0: error[syntax]: unexpected end of file"),
        (
            "{\"routes\": [hunter2]}",
            "a.json:1:13: error[syntax]: expected JSON",
        ),
        (
            "[]",
            "a.json: error[syntax]: expected a map of resource lists at the top level",
        ),
    ] {
        assert_eq!(read(text).expect_err("is refused").to_string(), expected);
    }
}

#[test]
fn cut_and_damaged_files_end_in_findings_not_in_panics() {
    let text = "a: &a {k: [1, 'x', \"\\u00e9\"]}\nroutes:\n- {<<: *a, id: 1, uri: /é, plugins: {p: ~}}\n- id: |\n    x\n  upstream: {nodes: {\"[::1]:80\": 1}, checks: {active: {}}}\nconsumers: [{id: j/credentials/c, plugins: {}}, 5]\nssls: [{sni: '*', cert: ${{URI}}}]\nplugins: [{name: a}]\n#END\n";
    let outcome = |text: &str, file: &str| {
        if let Ok(documents) = parse(text, &file.into(), &env()) {
            for route in &documents.routes {
                let _ = documents.places.locate(&route.place, "plugins.p");
            }
        }
    };
    for (end, _) in text.char_indices() {
        outcome(&text[..end], "a.yaml");
        outcome(&text[end..], "a.json");
        for damage in [
            "\t", "[", "}", ":", "\"", "&", "*", "!", "\u{85}", "-", "${{",
        ] {
            outcome(
                &format!("{}{damage}{}", &text[..end], &text[end..]),
                "a.yaml",
            );
        }
    }
}
