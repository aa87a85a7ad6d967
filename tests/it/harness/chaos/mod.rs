//! Stands between the gateway and a secret manager and misbehaves at random: the same seed gives
//! the same decks of faults and the same weather. It never says anything a manager could mean as
//! a "no", and forges values that must never be used.

mod http;
mod tls;

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{Rng as _, SeedableRng as _};

pub use tls::Faces;

/// Stands in every value the proxy makes up.
pub const FORGED: &str = "forged-by-chaos";
/// A stalled connection says nothing for so long: longer than any manager's time limit here.
pub const STALL: Duration = Duration::from_secs(6);

/// What the gateway meets at the proxy's address.
pub enum Front {
    /// HTTP in the clear.
    Http,
    /// TLS that the proxy ends itself; faults happen in the handshake and to requests.
    Https(Faces),
    /// Bytes to a manager that speaks TLS itself; faults happen to bytes.
    Tunnel(Faces),
}

/// Whose words the proxy imitates when it makes up answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    /// Vault and `OpenBao`.
    Vault,
    /// AWS Secrets Manager.
    Aws,
    /// Google Cloud.
    Gcp,
}

/// One way to misbehave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    /// None: the manager answers.
    Pass,
    /// The request reaches the manager late.
    DelayBefore,
    /// The manager's answer arrives late.
    DelayAfter,
    /// Nothing comes, for longer than anybody waits.
    Stall,
    /// RST in place of an answer.
    Reset,
    /// The connection closes without a byte.
    Close,
    /// RST in the middle of an answer.
    TruncateReset,
    /// The connection closes in the middle of an answer.
    TruncateClose,
    /// The answer comes in single bytes.
    Drip,
    /// 429 or 5xx, in the manager's words or in a stranger's, some with a forged value.
    Status,
    /// A 2xx, 3xx or 4xx that no manager said.
    Stranger,
    /// Bytes that are not HTTP.
    Garbage,
    /// HTTP that breaks its own rules.
    Malformed,
    /// A certificate of another authority.
    WrongAuthority,
    /// A certificate for another name.
    WrongName,
    /// A certificate that has ended.
    Expired,
    /// RST during the handshake.
    CutHandshake,
    /// Bytes in place of a `ServerHello`.
    NotTls,
    /// RST at some byte of an encrypted stream.
    CutStream,
    /// One bit of an encrypted stream flips.
    Corrupt,
}

/// How much goes wrong, second after second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Climate {
    /// Fair, rough and black periods, shuffled.
    Mixed(Duration),
    /// Black for the first time, fair for the second, and so on.
    Outages(Duration, Duration),
}

struct Shared {
    manager: SocketAddr,
    front: Front,
    dialect: Dialect,
    climate: Climate,
    storm: Mutex<Option<Instant>>,
    rng: Mutex<StdRng>,
    seed: u64,
    decks: Mutex<Decks>,
    counts: Mutex<BTreeMap<Fault, usize>>,
    stalled: AtomicUsize,
    stopped: AtomicBool,
}

/// Faults still to come before each has come once more.
#[derive(Default)]
struct Decks {
    connection: Vec<Fault>,
    request: Vec<Fault>,
}

/// A running proxy. It stops when dropped.
pub struct Chaos {
    /// Where it listens.
    pub addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Chaos {
    /// A calm proxy before the manager at this address.
    pub fn start(
        manager: SocketAddr,
        front: Front,
        dialect: Dialect,
        climate: Climate,
        seed: u64,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manager,
            front,
            dialect,
            climate,
            storm: Mutex::new(None),
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            seed,
            decks: Mutex::default(),
            counts: Mutex::default(),
            stalled: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.stopped.load(Ordering::Relaxed) {
                    break;
                }
                let shared = Arc::clone(&accepting);
                std::thread::spawn(move || connection(&shared, stream));
            }
        });
        Self { addr, shared }
    }

    /// Begins to misbehave.
    pub fn storm(&self) {
        *lock(&self.shared.storm) = Some(Instant::now());
    }

    /// Passes everything from now on; what is stalled stays so.
    pub fn calm(&self) {
        *lock(&self.shared.storm) = None;
    }

    /// How often each fault happened so far.
    pub fn counts(&self) -> BTreeMap<Fault, usize> {
        lock(&self.shared.counts).clone()
    }

    /// Connections that get nothing at this moment.
    pub fn stalled(&self) -> usize {
        self.shared.stalled.load(Ordering::Relaxed)
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
        // Wakes the accept loop, which then sees the flag.
        let _ = TcpStream::connect(self.addr);
    }
}

fn connection(shared: &Shared, stream: TcpStream) {
    let _ = stream.set_nodelay(true);
    match &shared.front {
        Front::Http => http::converse(shared, stream),
        Front::Https(faces) => tls::terminate(shared, faces, stream),
        Front::Tunnel(faces) => tls::tunnel(shared, faces, stream),
    }
}

impl Shared {
    /// What becomes of the next connection or request.
    fn draw(&self, kinds: &[Fault], deck: impl FnOnce(&mut Decks) -> &mut Vec<Fault>) -> Fault {
        let chance = self.chance();
        let mut rng = lock(&self.rng);
        let fault = if rng.random_bool(chance) {
            let mut decks = lock(&self.decks);
            let deck = deck(&mut decks);
            if deck.is_empty() {
                deck.extend(kinds);
                deck.shuffle(&mut rng);
            }
            deck.pop().unwrap_or(Fault::Pass)
        } else {
            Fault::Pass
        };
        drop(rng);
        *lock(&self.counts).entry(fault).or_default() += 1;
        fault
    }

    fn is_storming(&self) -> bool {
        lock(&self.storm).is_some()
    }

    /// How likely the next thing goes wrong.
    fn chance(&self) -> f64 {
        let Some(since) = *lock(&self.storm) else {
            return 0.0;
        };
        let elapsed = since.elapsed();
        match self.climate {
            Climate::Mixed(period) => {
                let at = elapsed.div_duration_f64(period) as usize;
                // The sky is shuffled anew each time it was seen whole.
                let mut sky = [FAIR, ROUGH, ROUGH, BLACK];
                let turn = (at / sky.len()) as u64;
                sky.shuffle(&mut StdRng::seed_from_u64(self.seed.wrapping_add(turn)));
                sky[at % sky.len()]
            }
            Climate::Outages(black, fair) => {
                let within = elapsed.as_secs_f64() % (black + fair).as_secs_f64();
                if within < black.as_secs_f64() {
                    BLACK
                } else {
                    FAIR
                }
            }
        }
    }

    fn random(&self, below: usize) -> usize {
        lock(&self.rng).random_range(0..below)
    }

    /// A pause that a client may or may not have the patience for.
    fn pause(&self, longest: Duration) -> Duration {
        longest.mul_f64(lock(&self.rng).random())
    }

    /// Says nothing for a long time.
    fn stall(&self) {
        self.stalled.fetch_add(1, Ordering::Relaxed);
        let until = Instant::now() + STALL;
        while Instant::now() < until && !self.stopped.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_millis(50));
        }
        self.stalled.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The next time the socket is dropped, the peer gets an RST.
fn reset_on_drop(stream: &TcpStream) {
    let _ = rustix::net::sockopt::set_socket_linger(stream, Some(Duration::ZERO));
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const FAIR: f64 = 0.15;
const ROUGH: f64 = 0.6;
const BLACK: f64 = 1.0;
