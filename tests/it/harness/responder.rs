//! The OCSP responder of the real `openssl` program: what it knows of certificates stands in an index
//! that it reads as it starts. It listens, or answers one request by files.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use claviger::tls::dev::Authority;
use openssl::x509::X509;

use super::{ports, wait_until};

/// What a responder says of a certificate. Of one that it was not told of it says `unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    Good,
    Revoked,
}

/// A responder that may be running; stopped when dropped.
pub struct Responder {
    child: Option<Child>,
    home: tempfile::TempDir,
    port: u16,
}

impl Responder {
    /// One that does not run yet, for certificates of this authority, which signs the answers, too.
    pub fn of(authority: &Authority) -> Self {
        let key = authority.key_pem().unwrap();
        let key = key.expose_str().unwrap();
        Self::signing_as(authority, &authority.cert_pem().unwrap(), key)
    }

    /// The same with another signer.
    pub fn signing_as(authority: &Authority, certificate: &str, key: &str) -> Self {
        let home = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| std::fs::write(home.path().join(name), text).unwrap();
        file("ca.pem", &authority.cert_pem().unwrap());
        file("signer.pem", certificate);
        file("signer.key", key);
        Self {
            child: None,
            port: ports::free(),
            home,
        }
    }

    /// As it stands in certificates.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}/", self.port)
    }

    /// Runs, from now on with this knowledge: certificates, PEM.
    pub fn run(&mut self, known: &[(&str, Standing)]) {
        self.stop();
        let port = self.port.to_string();
        let mut command = self.command(known);
        // Else it ends with the first request that is none.
        let command = command.args(["-port", &port, "-ignore_err"]);
        let log = self.home.path().join("log");
        let output = std::fs::File::create(&log).unwrap();
        let command = command.stdout(output.try_clone().unwrap()).stderr(output);
        self.child = Some(command.spawn().unwrap());
        // Not by a connection of ours: it would wait for a request.
        wait_until("the responder listens", || {
            std::fs::read_to_string(&log).unwrap().contains("ACCEPT")
        });
    }

    /// Ends, and answers nobody.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// What it answers to this request; it need not run.
    pub fn answer(&self, request: &[u8], known: &[(&str, Standing)]) -> Vec<u8> {
        std::fs::write(self.home.path().join("request.der"), request).unwrap();
        let mut command = self.command(known);
        let command = command.args(["-reqin", "request.der", "-respout", "response.der"]);
        assert!(command.status().unwrap().success(), "it must answer");
        std::fs::read(self.home.path().join("response.der")).unwrap()
    }

    /// Where its files are.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    fn command(&self, known: &[(&str, Standing)]) -> Command {
        let mut index = String::new();
        for (certificate, standing) in known {
            let (letter, since) = match standing {
                Standing::Good => ('V', ""),
                Standing::Revoked => ('R', "260101000000Z"),
            };
            let serial = serial(certificate.as_bytes());
            writeln!(
                index,
                "{letter}\t491231235959Z\t{since}\t{serial}\tunknown\t/CN={serial}"
            )
            .unwrap();
        }
        std::fs::write(self.home.path().join("index.txt"), index).unwrap();
        let mut command = Command::new("openssl");
        command
            .args([
                "ocsp",
                "-index",
                "index.txt",
                "-CA",
                "ca.pem",
                "-ndays",
                "1",
            ])
            .args(["-rsigner", "signer.pem", "-rkey", "signer.key"])
            .current_dir(self.home.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        command
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The serial number of the first certificate of a text, as `openssl` writes it.
pub fn serial(pem: &[u8]) -> String {
    let certificate = X509::from_pem(pem).unwrap();
    let number = certificate.serial_number().to_bn().unwrap();
    number.to_hex_str().unwrap().to_string()
}
