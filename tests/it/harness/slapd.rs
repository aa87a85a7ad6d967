//! A real OpenLDAP directory (`slapd`) with its own configuration and database in a temporary
//! folder, as an ordinary process. A copy of the program runs: where AppArmor confines the one in
//! `/usr/sbin` to the system's own folders, it does so by that path.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use claviger::tls::dev::Issued;

use super::{certs, ports};

/// Name of the entry that may search ([`Slapd::start`]) and its two passwords.
pub const SERVICE: &str = "cn=gateway,dc=test";
/// Both are good at any time.
pub const SERVICE_PASSWORDS: [&str; 2] = ["gateway-one", "gateway-two"];

/// A running directory; killed on drop.
#[derive(Debug)]
pub struct Slapd {
    child: Option<Child>,
    home: tempfile::TempDir,
    port: u16,
    tls_port: u16,
}

impl Slapd {
    /// A directory `dc=test` with [`SERVICE`] and these further entries as LDIF. Who has no name
    /// may bind and nothing else; users may read themselves; [`SERVICE`] may search.
    pub fn start(entries: &str) -> Self {
        Self::start_with(entries, None)
    }

    /// The same with TLS on a port of its own, and StartTLS on the other.
    pub fn start_tls(entries: &str, certificate: &Issued) -> Self {
        Self::start_with(entries, Some(certificate))
    }

    fn start_with(entries: &str, certificate: Option<&Issued>) -> Self {
        let home = tempfile::tempdir().unwrap();
        let dir = home.path();
        std::fs::create_dir(dir.join("db")).unwrap();
        std::fs::write(dir.join("slapd.conf"), configuration(dir, certificate)).unwrap();
        std::fs::write(dir.join("seed.ldif"), seed(entries)).unwrap();
        std::fs::copy(program(), dir.join("slapd"))
            .expect("slapd must be installed (scripts/setup.sh test)");
        let added = Command::new(dir.join("slapd"))
            .args(["-T", "add", "-f"])
            .arg(dir.join("slapd.conf"))
            .arg("-l")
            .arg(dir.join("seed.ldif"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&added.stderr);
        assert!(
            added.status.success(),
            "slapadd must take the entries: {said}"
        );
        let mut slapd = Self {
            child: None,
            port: ports::free(),
            tls_port: ports::free(),
            home,
        };
        slapd.restart();
        slapd
    }

    /// `127.0.0.1:<port>`, in the clear.
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// The port for TLS.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The port in the clear.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Ends the process; its data stays.
    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// Starts it on the same ports with the data it had, and waits until it listens.
    pub fn restart(&mut self) {
        self.stop();
        let urls = format!(
            "ldap://127.0.0.1:{} ldaps://127.0.0.1:{}",
            self.port, self.tls_port
        );
        let child = Command::new(self.home.path().join("slapd"))
            .arg("-f")
            .arg(self.home.path().join("slapd.conf"))
            // In the foreground.
            .args(["-h", &urls, "-d", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.child = Some(child.unwrap());
        let deadline = Instant::now() + Duration::from_secs(20);
        while std::net::TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(Instant::now() < deadline, "slapd must listen");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Slapd {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Below `/usr/sbin`, which is not on every user's path.
fn program() -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<_> = std::env::split_paths(&path).collect();
    folders.push("/usr/sbin".into());
    let mut files = folders.into_iter().map(|folder| folder.join("slapd"));
    let found = files.find(|file| file.is_file());
    found.expect("slapd must be installed (scripts/setup.sh test)")
}

fn configuration(dir: &Path, certificate: Option<&Issued>) -> String {
    let mut text = String::new();
    for schema in ["core", "cosine", "inetorgperson"] {
        let _ = writeln!(text, "include /etc/ldap/schema/{schema}.schema");
    }
    let home = dir.display();
    let _ = write!(
        text,
        "modulepath /usr/lib/ldap\nmoduleload back_mdb\npidfile {home}/slapd.pid\nloglevel none\n\
         threads 4\n"
    );
    if let Some(certificate) = certificate {
        std::fs::write(dir.join("cert.pem"), &certificate.cert_pem).unwrap();
        std::fs::write(dir.join("key.pem"), certs::key_text(certificate)).unwrap();
        let _ = write!(
            text,
            "TLSCertificateFile {home}/cert.pem\nTLSCertificateKeyFile {home}/key.pem\n"
        );
    }
    let _ = write!(
        text,
        "access to attrs=userPassword by anonymous auth by * none\n\
         access to * by dn.exact=\"{SERVICE}\" read by self read by * none\n\
         database mdb\nsuffix dc=test\nrootdn cn=root,dc=test\ndirectory {home}/db\n\
         maxsize 10485760\ndbnosync\n"
    );
    text
}

fn seed(entries: &str) -> String {
    let [one, two] = SERVICE_PASSWORDS;
    format!(
        "dn: dc=test\nobjectClass: dcObject\nobjectClass: organization\no: test\ndc: test\n\n\
         dn: {SERVICE}\nobjectClass: organizationalRole\nobjectClass: simpleSecurityObject\n\
         cn: gateway\nuserPassword: {one}\nuserPassword: {two}\n\n{entries}"
    )
}

/// An entry of a user, named by `cn`, with `uid` and password; `dn` as LDIF writes it.
pub fn user(dn: &str, cn: &str, uid: &str, password: &str) -> String {
    format!(
        "dn: {dn}\nobjectClass: inetOrgPerson\ncn: {cn}\nsn: {cn}\nuid: {uid}\n\
         userPassword: {password}\n\n"
    )
}
