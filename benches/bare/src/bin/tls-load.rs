//! `tls-load ADDRESS NAMES [--connections N] [--threads N] [--tls 1.2|1.3] [--resume] [--requests N]
//! [--pid PID] [--ask HOST]`: TLS connections one after another, each a TCP connection, a handshake
//! for a name of the file NAMES (round robin), so many small requests, and the end. Prints how many
//! there were, how many of them resumed, and what the process PID needed of the processor for each.
//!
//! With `--resume` every name is first connected to once, which is not counted. A connection without
//! requests ends with `close_notify` and is over when the server has closed too: by then the server
//! has finished its part of the handshake, sent its tickets and taken the connection down.
//!
//! Certificates are not verified: the server's work is measured, not ours.

use std::collections::HashMap;
use std::error::Error;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use openssl::error::ErrorStack;
use openssl::ex_data::Index;
use openssl::ssl::{
    ShutdownResult, Ssl, SslContext, SslContextBuilder, SslMethod, SslSession, SslSessionCacheMode,
    SslStream, SslVerifyMode, SslVersion,
};

type Failure = Box<dyn Error + Send + Sync>;

struct Load {
    address: SocketAddr,
    names: Vec<String>,
    connections: usize,
    threads: usize,
    version: SslVersion,
    resume: bool,
    requests: usize,
    pid: Option<u32>,
}

impl Load {
    fn parse(args: impl Iterator<Item = String>) -> Result<Self, Failure> {
        let mut args = args;
        let usage = "usage: tls-load ADDRESS NAMES [--connections N] [--threads N] \
            [--tls 1.2|1.3] [--resume] [--requests N] [--pid PID]";
        let (Some(address), Some(names)) = (args.next(), args.next()) else {
            return Err(usage.into());
        };
        let names = fs::read_to_string(&names).map_err(|error| format!("{names}: {error}"))?;
        let mut load = Self {
            address: address.parse()?,
            names: names.lines().map(str::to_owned).collect(),
            connections: 1000,
            threads: 4,
            version: SslVersion::TLS1_3,
            resume: false,
            requests: 0,
            pid: None,
        };
        if load.names.is_empty() {
            return Err("no names to ask for".into());
        }
        while let Some(option) = args.next() {
            if option == "--resume" {
                load.resume = true;
                continue;
            }
            let value = args.next().ok_or(usage)?;
            match option.as_str() {
                "--connections" => load.connections = value.parse()?,
                "--threads" => load.threads = value.parse()?,
                "--requests" => load.requests = value.parse()?,
                "--pid" => load.pid = Some(value.parse()?),
                "--tls" if value == "1.2" => load.version = SslVersion::TLS1_2,
                "--tls" if value == "1.3" => load.version = SslVersion::TLS1_3,
                _ => return Err(usage.into()),
            }
        }
        Ok(load)
    }

    /// So many connections, spread over the threads; how many of them resumed.
    fn run(&self, client: &Client, connections: usize) -> Result<usize, Failure> {
        let next = AtomicUsize::new(0);
        let resumed = AtomicUsize::new(0);
        let work = || -> Result<(), Failure> {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= connections {
                    return Ok(());
                }
                let place = number % self.names.len();
                if self.connect(client, place)? {
                    resumed.fetch_add(1, Ordering::Relaxed);
                }
            }
        };
        thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .try_for_each(|worker| worker.join().map_err(|_| "a thread panicked")?)
        })?;
        Ok(resumed.into_inner())
    }

    /// One connection; whether its session was resumed.
    fn connect(&self, client: &Client, place: usize) -> Result<bool, Failure> {
        let name = &self.names[place];
        let tcp = TcpStream::connect(self.address)?;
        tcp.set_nodelay(true)?;
        tcp.set_read_timeout(Some(Duration::from_secs(30)))?;
        let ssl = client.ssl(name, place, self.resume)?;
        let mut stream = SslStream::new(ssl, tcp)?;
        stream
            .connect()
            .map_err(|error| format!("{name}: {error}"))?;
        let resumed = stream.ssl().session_reused();
        for _ in 0..self.requests {
            request(&mut stream, name)?;
        }
        if stream.shutdown()? == ShutdownResult::Sent {
            // Tickets come first, then the server's own end.
            let mut rest = [0; 1024];
            while matches!(stream.read(&mut rest), Ok(count) if count > 0) {}
        }
        Ok(resumed)
    }
}

/// One request and its whole answer, which must be a 200.
fn request(stream: &mut SslStream<TcpStream>, host: &str) -> Result<(), Failure> {
    stream.write_all(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    if !line.starts_with("HTTP/1.1 200 ") {
        return Err(format!("{host} was answered: {line}").into());
    }
    let mut length = 0;
    while line.trim_end() != "" {
        line.clear();
        reader.read_line(&mut line)?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok(())
}

/// The newest session of each name, as browsers keep them.
type Sessions = Arc<Mutex<HashMap<usize, SslSession>>>;

struct Client {
    context: SslContext,
    sessions: Sessions,
    place: Index<Ssl, usize>,
}

impl Client {
    fn new(version: SslVersion, resume: bool) -> Result<Self, ErrorStack> {
        let sessions = Sessions::default();
        let place = Ssl::new_ex_index()?;
        let mut context = SslContextBuilder::new(SslMethod::tls_client())?;
        context.set_verify(SslVerifyMode::NONE);
        context.set_min_proto_version(Some(version))?;
        context.set_max_proto_version(Some(version))?;
        context.set_alpn_protos(b"\x08http/1.1")?;
        // One suite, whatever a server prefers: the digest of the key schedule alone is a tenth.
        context.set_ciphersuites("TLS_AES_128_GCM_SHA256")?;
        context.set_cipher_list("ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256")?;
        if resume {
            let mode = SslSessionCacheMode::CLIENT | SslSessionCacheMode::NO_INTERNAL;
            context.set_session_cache_mode(mode);
            let keep = sessions.clone();
            context.set_new_session_callback(move |ssl, session| {
                if let Some(place) = ssl.ex_data(place) {
                    lock(&keep).insert(*place, session);
                }
            });
        }
        Ok(Self {
            context: context.build(),
            sessions,
            place,
        })
    }

    fn ssl(&self, name: &str, place: usize, resume: bool) -> Result<Ssl, ErrorStack> {
        let mut ssl = Ssl::new(&self.context)?;
        ssl.set_hostname(name)?;
        if resume {
            ssl.set_ex_data(self.place, place);
            if let Some(session) = lock(&self.sessions).get(&place) {
                // SAFETY: the session was made by a connection of this very context.
                unsafe { ssl.set_session(session)? };
            }
        }
        Ok(ssl)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Time on a processor that all threads of a process have had so far, from the scheduler's own
/// count: nanoseconds, where `/proc/PID/stat` has ticks.
fn cpu_time(pid: u32) -> Result<Duration, Failure> {
    let mut total = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        let line = fs::read_to_string(task?.path().join("schedstat"))?;
        let first = line.split_whitespace().next();
        total += first.ok_or("an empty schedstat")?.parse::<u64>()?;
    }
    Ok(Duration::from_nanos(total))
}

fn main() -> Result<(), Failure> {
    let load = Load::parse(std::env::args().skip(1))?;
    let client = Client::new(load.version, load.resume)?;
    if load.resume {
        load.run(&client, load.names.len())?;
    }
    let cpu = || load.pid.map(cpu_time).transpose();
    let (before, began) = (cpu()?, Instant::now());
    let resumed = load.run(&client, load.connections)?;
    let (after, took) = (cpu()?, began.elapsed());
    if load.resume && resumed != load.connections {
        return Err(format!("only {resumed} of {} resumed", load.connections).into());
    }
    let each = before.zip(after).map_or(0, |(before, after)| {
        (after - before).as_nanos() / load.connections.max(1) as u128
    });
    println!(
        "connections {} resumed {resumed} took_ms {} cpu_ns {each}",
        load.connections,
        took.as_millis()
    );
    Ok(())
}
