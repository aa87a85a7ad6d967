//! `mocking`: answers instead of the upstream, with an example or sample data (`spec/03` §8).

use std::time::Duration;

use http::{HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::{Map, Value};

use super::sample::{Sample, xml};
use crate::expr::Template;
use crate::plugins::ctx::RequestCtx;
use crate::plugins::def::{self, BuildCtx, BuildError, PluginDef, PluginKind};
use crate::plugins::phase::{Access, Hooks, Step};
use crate::plugins::respond::Response;

pub(in crate::plugins) const DEF: PluginDef = PluginDef {
    name: "mocking",
    priority: 10900,
    kind: PluginKind::Ordinary,
    build: |json, ctx| build(&def::parse(json)?, ctx),
    credential: None,
};

#[derive(Deserialize)]
#[serde(default)]
struct MockingConfig {
    /// Body; a template. Beats `response_schema`.
    response_example: Option<String>,
    /// JSON schema that sample data is made for.
    response_schema: Option<Value>,
    /// Status: 100 to 599.
    response_status: u16,
    /// Media type of the body; decides between JSON and XML samples.
    content_type: String,
    /// Seconds before the answer.
    delay: u64,
    /// Whether the answer says that it is made up.
    with_mock_header: bool,
    /// More headers.
    response_headers: Map<String, Value>,
}

impl Default for MockingConfig {
    fn default() -> Self {
        Self {
            response_example: None,
            response_schema: None,
            response_status: 200,
            content_type: "application/json;charset=utf8".to_owned(),
            delay: 0,
            with_mock_header: true,
            response_headers: Map::new(),
        }
    }
}

enum Content {
    Example(Template),
    Json(Sample),
    Xml(Sample),
}

struct Mocking {
    content: Content,
    status: u16,
    headers: Vec<(HeaderName, HeaderValue)>,
    delay: Duration,
}

const MOCK_HEADER: HeaderName = HeaderName::from_static("x-mock-by");
const MOCKED_BY: HeaderValue =
    HeaderValue::from_static(concat!("Claviger/", env!("CARGO_PKG_VERSION")));

const MEDIA_TYPES: [&str; 5] = [
    "application/json",
    "application/xml",
    "text/plain",
    "text/html",
    "text/xml",
];

/// Longest delay taken; a connection is held that long.
const MAX_DELAY_SECS: u64 = 3600;

fn build(config: &MockingConfig, _ctx: &BuildCtx<'_>) -> Result<Hooks, BuildError> {
    let media_type = config
        .content_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim();
    if !MEDIA_TYPES.contains(&media_type) {
        let message = format!("must be one of {}", MEDIA_TYPES.join(", "));
        return Err(BuildError::invalid("content_type", message));
    }
    if !(100..=599).contains(&config.response_status) {
        return Err(BuildError::invalid("response_status", "must be 100 to 599"));
    }
    if config.delay > MAX_DELAY_SECS {
        return Err(BuildError::invalid("delay", "must be at most 3600"));
    }
    let content = match (&config.response_example, &config.response_schema) {
        (Some(example), _) => Content::Example(Template::parse(example)),
        (None, Some(schema)) => {
            let sample = Sample::parse("response_schema", schema)?;
            if media_type.ends_with("/xml") {
                Content::Xml(sample)
            } else {
                Content::Json(sample)
            }
        }
        (None, None) => {
            let message = "one of response_example and response_schema is required";
            return Err(BuildError::invalid("", message));
        }
    };
    let plugin = Mocking {
        content,
        status: config.response_status,
        headers: headers(config)?,
        delay: Duration::from_secs(config.delay),
    };
    Ok(Hooks::of(plugin).access().done())
}

fn headers(config: &MockingConfig) -> Result<Vec<(HeaderName, HeaderValue)>, BuildError> {
    let content_type = HeaderValue::from_str(&config.content_type)
        .map_err(|_| BuildError::invalid("content_type", "must be a header value"))?;
    let mut headers = vec![(http::header::CONTENT_TYPE, content_type)];
    if config.with_mock_header {
        headers.push((MOCK_HEADER, MOCKED_BY));
    }
    for (name, value) in &config.response_headers {
        let invalid =
            |message: &str| BuildError::invalid(format!("response_headers.{name}"), message);
        let name = HeaderName::try_from(name).map_err(|_| invalid("must be a header name"))?;
        let value = match value {
            Value::String(text) => HeaderValue::from_str(text),
            Value::Number(number) => HeaderValue::from_str(&number.to_string()),
            _ => return Err(invalid("expected a string or a number")),
        };
        let value = value.map_err(|_| invalid("must be a header value"))?;
        headers.retain(|(earlier, _)| *earlier != name);
        headers.push((name, value));
    }
    Ok(headers)
}

impl Access for Mocking {
    fn access<'a>(&'a self, req: &'a mut RequestCtx<'_>) -> Step<'a> {
        if self.delay.is_zero() {
            return self.answer(req).into();
        }
        // Made now, so that nothing of the request is held while waiting.
        let answer = self.answer(req);
        let delay = self.delay;
        Step::Wait(Box::pin(async move {
            tokio::time::sleep(delay).await;
            answer.into()
        }))
    }
}

impl Mocking {
    fn answer(&self, req: &RequestCtx<'_>) -> Response {
        let body = match &self.content {
            Content::Example(template) => template.render(req),
            Content::Json(sample) => sample.generate().to_string(),
            Content::Xml(sample) => {
                let mut body = String::new();
                xml("data", &sample.generate(), &mut body);
                body
            }
        };
        Response {
            status: self.status,
            headers: self.headers.clone(),
            body: Some(body.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::plugins::testing::{Exchange, answered, body_text, built, refusal};

    fn answer(config: &Value) -> Response {
        let mut exchange = Exchange::get("/a?name=joe");
        let answer = exchange.access(&built(&DEF, config));
        answer.expect("request is answered")
    }

    #[test]
    fn an_example_is_answered_with_its_variables() {
        let found =
            answer(&json!({"response_example": "{\"uri\":\"$uri\",\"n\":\"${arg_name}\"}"}));
        assert_eq!(found.status, 200);
        assert_eq!(body_text(&found), "{\"uri\":\"/a\",\"n\":\"joe\"}");
        let content_type = answered(&found, "content-type");
        assert_eq!(content_type, Some("application/json;charset=utf8"));
        let by = answered(&found, "x-mock-by").expect("answer says it is made up");
        assert!(by.starts_with("Claviger/"), "{by}");
    }

    #[test]
    fn status_type_and_headers_can_be_chosen() {
        let found = answer(&json!({
            "response_example": "", "response_status": 503, "content_type": "text/plain",
            "with_mock_header": false,
            "response_headers": {"X-A": "b", "X-N": 5, "Content-Type": "text/x"},
        }));
        assert_eq!(found.status, 503);
        assert_eq!(body_text(&found), "");
        assert!(found.body.is_some(), "an empty body is no stock page");
        for (name, expected) in [
            ("content-type", Some("text/x")),
            ("x-a", Some("b")),
            ("x-n", Some("5")),
            ("x-mock-by", None),
        ] {
            assert_eq!(answered(&found, name), expected, "{name}");
        }
    }

    #[test]
    fn a_schema_is_answered_with_sample_data() {
        let schema =
            json!({"type": "object", "properties": {"a": {"type": "string", "example": "x"}}});
        let found = answer(&json!({"response_schema": schema}));
        assert_eq!(body_text(&found), "{\"a\":\"x\"}");
        let found = answer(&json!({"response_schema": schema, "content_type": "text/xml"}));
        assert_eq!(body_text(&found), "<data><a>x</a></data>");
    }

    #[test]
    fn a_delay_is_waited_for() {
        let hooks = built(&DEF, &json!({"response_example": "late", "delay": 1}));
        let mut exchange = Exchange::get("/");
        let hook = hooks.access.clone().expect("plugin has phase access");
        assert!(
            matches!(hook.access(&mut exchange.ctx()), Step::Wait(_)),
            "answer comes later"
        );
        let answer = exchange.access(&hooks).expect("request is answered");
        assert_eq!(body_text(&answer), "late");
    }

    #[test]
    fn wrong_configuration_names_the_field() {
        let with = |more: Value| {
            let mut config = json!({"response_example": "x"});
            let map = config.as_object_mut().expect("it is a map");
            map.extend(more.as_object().expect("it is a map").clone());
            config
        };
        for (json, expected) in [
            (
                json!(null),
                ": one of response_example and response_schema is required",
            ),
            (with(json!({"delay": 3601})), "delay: must be at most 3600"),
            (
                with(json!({"response_status": 99})),
                "response_status: must be 100 to 599",
            ),
            (
                with(json!({"response_headers": {"a": []}})),
                "response_headers.a: expected a string or a number",
            ),
            (
                with(json!({"response_headers": {"a": "\n"}})),
                "response_headers.a: must be a header value",
            ),
            (
                with(json!({"response_headers": {"a b": "c"}})),
                "response_headers.a b: must be a header name",
            ),
            (
                with(json!({"content_type": "image/png"})),
                "content_type: must be one of application/json, application/xml, text/plain, text/html, text/xml",
            ),
            (
                json!({"response_schema": {"type": "x"}}),
                "response_schema: type must be object, array, string, number, integer or boolean",
            ),
        ] {
            assert_eq!(refusal(&DEF, &json), expected);
        }
    }
}
