//! A real nginx behind TLS.

use std::fmt::Write as _;
use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};

use claviger::tls::dev::Issued;
use tempfile::TempDir;

use super::{certs, ports, wait_until};

/// A running nginx of one process. It is killed when dropped.
pub struct Nginx {
    /// Where it listens.
    pub addr: SocketAddr,
    child: Child,
    dir: TempDir,
}

impl Nginx {
    /// A server with this certificate. `listen` is added to `listen … ssl`; `server` is what else
    /// stands in the server block, where `DIR` is a folder that `files` are written to.
    pub fn start(issued: &Issued, listen: &str, server: &str, files: &[(&str, &[u8])]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("crt.pem"), &issued.cert_pem).unwrap();
        fs::write(path("key.pem"), certs::key_text(issued)).unwrap();
        for (name, content) in files {
            fs::write(path(name), content).unwrap();
        }
        let addr = SocketAddr::from(([127, 0, 0, 1], ports::free()));
        let root = dir.path().display();
        let mut conf = String::from("daemon off; master_process off; error_log stderr info;\n");
        write!(
            conf,
            "pid {root}/pid; events {{}}\nhttp {{\n  access_log off;\n"
        )
        .unwrap();
        for kind in ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"] {
            writeln!(conf, "  {kind}_temp_path {root}/{kind};").unwrap();
        }
        let server = server.replace("DIR", &root.to_string());
        write!(
            conf,
            "  server {{\n    listen {addr} ssl {listen};\n    ssl_certificate {root}/crt.pem;\n    \
             ssl_certificate_key {root}/key.pem;\n    root {root};\n    {server}\n  }}\n}}\n"
        )
        .unwrap();
        fs::write(path("nginx.conf"), conf).unwrap();
        let log = fs::File::create(path("error.log")).unwrap();
        let child = Command::new("nginx")
            .arg("-p")
            .arg(dir.path())
            .arg("-c")
            .arg(path("nginx.conf"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("nginx is installed by scripts/setup.sh");
        let nginx = Self { addr, child, dir };
        wait_until("nginx listens", || TcpStream::connect(addr).is_ok());
        nginx
    }

    /// What it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.dir.path().join("error.log")).unwrap()
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- nginx\n{}", self.log());
        }
    }
}
