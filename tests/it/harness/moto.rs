//! A real `moto` server: AWS Secrets Manager, IAM and STS on loopback.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};

use super::{ports, tool};

/// A running server; killed on drop.
pub struct Moto {
    child: Child,
    /// `http://127.0.0.1:port`.
    pub addr: String,
    http: reqwest::Client,
}

/// A key as IAM or STS gives it.
#[derive(Debug, Clone)]
pub struct AccessKey {
    pub id: String,
    pub secret: String,
}

impl Moto {
    /// Starts `moto_server` and waits until it answers.
    pub async fn start() -> Self {
        let port = ports::free();
        let program = tool("moto_server");
        let child = Command::new(&program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{} must start: {error}", program.display()));
        let moto = Self {
            child,
            addr: format!("http://127.0.0.1:{port}"),
            http: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        let deadline = Instant::now() + Duration::from_secs(60);
        let url = format!("{}/moto-api/data.json", moto.addr);
        while moto.http.get(&url).send().await.is_err() {
            assert!(Instant::now() < deadline, "moto must be ready within 60 s");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        moto
    }

    /// Makes a secret, or a new version of it.
    pub async fn put(&self, name: &str, text: &str) {
        self.put_in(REGION, name, json!({ "SecretString": text }))
            .await;
    }

    /// The same, of bytes.
    pub async fn put_binary(&self, name: &str, bytes: &[u8]) {
        let text = base64::engine::general_purpose::STANDARD.encode(bytes);
        self.put_in(REGION, name, json!({ "SecretBinary": text }))
            .await;
    }

    /// The same in a region; `value` holds `SecretString` or `SecretBinary`. Returns the id of
    /// the version.
    pub async fn put_in(&self, region: &str, name: &str, value: Value) -> String {
        let (mut create, mut put) = (value.clone(), value);
        create["Name"] = name.into();
        put["SecretId"] = name.into();
        let (mut status, mut answer) = self.try_call(region, "PutSecretValue", &put).await;
        if answer["__type"] == "ResourceNotFoundException" {
            (status, answer) = self.try_call(region, "CreateSecret", &create).await;
        }
        assert_eq!(status, 200, "{name}: {answer}");
        answer["VersionId"].as_str().unwrap().to_owned()
    }

    /// Marks a secret for deletion.
    pub async fn delete(&self, name: &str) {
        self.call("DeleteSecret", json!({ "SecretId": name })).await;
    }

    /// Takes [`Moto::delete`] back.
    pub async fn restore(&self, name: &str) {
        self.call("RestoreSecret", json!({ "SecretId": name }))
            .await;
    }

    /// Deletes a secret at once.
    pub async fn remove(&self, name: &str) {
        let now = json!({ "SecretId": name, "ForceDeleteWithoutRecovery": true });
        self.call("DeleteSecret", now).await;
    }

    /// A call of Secrets Manager that must succeed.
    pub async fn call(&self, action: &str, body: Value) -> Value {
        let (status, answer) = self.try_call(REGION, action, &body).await;
        assert_eq!(status, 200, "{action} {body}: {answer}");
        answer
    }

    /// Whether signatures and policies are looked at; our own calls are not signed, so they need
    /// it off, as it is at the start. (`moto` then answers refusals in XML, unlike AWS.)
    pub async fn enforce(&self, on: bool) {
        let url = format!("{}/moto-api/reset-auth", self.addr);
        let unchecked = if on { "0" } else { "inf" };
        let sent = self.http.post(url).body(unchecked).send().await.unwrap();
        assert_eq!(sent.status(), 200);
    }

    /// An IAM user who may do everything with secrets.
    pub async fn user(&self, name: &str) -> AccessKey {
        self.iam(&[("Action", "CreateUser"), ("UserName", name)])
            .await;
        let answer = self
            .iam(&[("Action", "CreateAccessKey"), ("UserName", name)])
            .await;
        self.iam(&[
            ("Action", "PutUserPolicy"),
            ("UserName", name),
            ("PolicyName", "secrets"),
            ("PolicyDocument", POLICY),
        ])
        .await;
        AccessKey {
            id: element(&answer, "AccessKeyId"),
            secret: element(&answer, "SecretAccessKey"),
        }
    }

    /// A role that may do the same; returns its ARN.
    pub async fn role(&self, name: &str) -> String {
        let answer = self
            .iam(&[
                ("Action", "CreateRole"),
                ("RoleName", name),
                ("AssumeRolePolicyDocument", POLICY),
            ])
            .await;
        self.iam(&[
            ("Action", "PutRolePolicy"),
            ("RoleName", name),
            ("PolicyName", "secrets"),
            ("PolicyDocument", POLICY),
        ])
        .await;
        element(&answer, "Arn")
    }

    /// Credentials of a session of that role, and its token.
    pub async fn session(&self, role: &str) -> (AccessKey, String) {
        let parameters = [
            ("Action", "AssumeRole"),
            ("RoleArn", role),
            ("RoleSessionName", "test"),
        ];
        let answer = self.query("sts", "2011-06-15", &parameters).await;
        let key = AccessKey {
            id: element(&answer, "AccessKeyId"),
            secret: element(&answer, "SecretAccessKey"),
        };
        (key, element(&answer, "SessionToken"))
    }

    async fn iam(&self, parameters: &[(&str, &str)]) -> String {
        self.query("iam", "2010-05-08", parameters).await
    }

    async fn query(&self, service: &str, version: &str, parameters: &[(&str, &str)]) -> String {
        let encode = |text: &str| {
            percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC)
                .to_string()
        };
        let mut form = format!("Version={version}");
        for (name, value) in parameters {
            form.push_str(&format!("&{name}={}", encode(value)));
        }
        let request = self
            .http
            .post(&self.addr)
            .header("Authorization", authorization(service, REGION))
            .header("Content-Type", "application/x-www-form-urlencoded")
            .body(form);
        let response = request.send().await.unwrap();
        let (status, text) = (response.status(), response.text().await.unwrap());
        assert_eq!(status, 200, "{parameters:?}: {text}");
        text
    }

    async fn try_call(&self, region: &str, action: &str, body: &Value) -> (u16, Value) {
        let request = self
            .http
            .post(&self.addr)
            .header("X-Amz-Target", format!("secretsmanager.{action}"))
            .header("Authorization", authorization("secretsmanager", region))
            .header("Content-Type", "application/x-amz-json-1.1")
            .body(body.to_string());
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        let text = response.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// `moto` takes service and region from here.
fn authorization(service: &str, region: &str) -> String {
    format!(
        "AWS4-HMAC-SHA256 Credential=test/20260101/{region}/{service}/aws4_request, \
         SignedHeaders=host, Signature=0"
    )
}

/// The text of the first such element.
pub fn element(xml: &str, name: &str) -> String {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let rest = xml.split_once(&open).expect("element must be there").1;
    rest.split_once(&close)
        .expect("element must end")
        .0
        .to_owned()
}

/// Where secrets are kept unless said otherwise.
pub const REGION: &str = "us-east-1";

const POLICY: &str = r#"{"Version":"2012-10-17","Statement":[{"Effect":"Allow","Action":"secretsmanager:*","Resource":"*"}]}"#;
