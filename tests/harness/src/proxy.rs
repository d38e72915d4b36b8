//! A TCP proxy that breaks connections by script, before a server that is real.
//!
//! Bytes are forwarded unchanged, so signatures stay valid when the proxy's address is the endpoint that was signed.
//! Each new connection takes the next [`Fault`] of the script; when the script is empty connections pass. Faults are
//! counted in bytes, not in time, so a test that passes once passes always; but for [`Fault::Slow`], which is a rate.
//! [`Proxy::rewrite`] alters what the server says, [`Proxy::judge`] breaks single requests.

mod answers;

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::net::sockopt::set_socket_linger;

pub use self::answers::{Act, Answer, Judge, Lie};
use self::answers::{End, Judged, converse};

/// What happens to one connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Closed as soon as it is open.
    Refuse,
    /// Closed both ways after this many bytes went to the server.
    CutUpstream(u64),
    /// Closed both ways after this many bytes went to the client.
    CutDownstream(u64),
    /// Reset after this many bytes went to the client: what is on its way may be lost, too.
    ResetDownstream(u64),
    /// One bit is flipped at the beginning of this many request bodies.
    DamageBodies(usize),
    /// Its first request is read whole and answered with 503 `SlowDown`; the server never sees it.
    Answer503,
    /// The same with 500 `InternalError`.
    Answer500,
    /// Everything is read, nothing is ever answered.
    Stall,
    /// After this many bytes went to the server nothing is read any more; the connection stays open.
    StallUpstream(u64),
    /// After this many bytes went to the client nothing is sent any more; the connection stays open.
    StallDownstream(u64),
    /// Not more than this many bytes a second, either way.
    Slow(u64),
}

#[derive(Debug, Default)]
struct Shared {
    script: Mutex<VecDeque<Fault>>,
    open: Mutex<Vec<TcpStream>>,
    heads: Mutex<Vec<String>>,
    judge: Mutex<Option<Judged>>,
    connections: AtomicUsize,
    stopping: AtomicBool,
}

impl Shared {
    /// Holds a connection that stands still. Nothing is read from it, so nobody says when its client goes away.
    fn wait_for_the_end(&self) {
        while !self.stopping.load(Ordering::SeqCst) {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A running proxy. Dropping it closes everything.
#[derive(Debug)]
pub struct Proxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Proxy {
    /// Listens on 127.0.0.1 and a free port, before `server`.
    pub fn start(server: SocketAddr) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared::default());
        let inner = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for client in listener.incoming() {
                if inner.stopping.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                inner.connections.fetch_add(1, Ordering::SeqCst);
                let fault = lock(&inner.script).pop_front().unwrap_or(Fault::Pass);
                let inner = Arc::clone(&inner);
                // Errors of a connection are seen by its client: that is what a proxy is.
                std::thread::spawn(move || drop(connection(&inner, &client, server, fault)));
            }
        });
        Ok(Self { addr, shared, thread: Some(thread) })
    }

    /// `http://127.0.0.1:port`.
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Appends to the script.
    pub fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        lock(&self.shared.script).extend(faults);
    }

    /// From now on each new connection without a fault gets answers as `lie` leaves them; `None`: as they are.
    pub fn rewrite(&self, lie: Option<Lie>) {
        self.judge(lie.map(|lie| Arc::new(move |_: &str| Act::Lie(lie.clone())) as Judge));
    }

    /// From now on `judge` is asked about each request on a new connection without a fault; `None`: all pass.
    pub fn judge(&self, judge: Option<Judge>) {
        *lock(&self.shared.judge) = judge.map(Judged);
        self.close_open();
    }

    /// Faults that no connection has taken yet.
    pub fn left(&self) -> usize {
        lock(&self.shared.script).len()
    }

    /// Closes connections that are kept open, so that the next request opens one and takes the next fault.
    pub fn close_open(&self) {
        for stream in lock(&self.shared.open).drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were made.
    pub fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }

    /// The heads (request line and headers, in lower case from the second line) of all requests that arrived whole as
    /// far as their head, in order.
    pub fn heads(&self) -> Vec<String> {
        lock(&self.shared.heads).clone()
    }

    /// How many requests had this method (`PUT`, …).
    pub fn requests(&self, method: &str) -> usize {
        lock(&self.shared.heads).iter().filter(|head| head.split(' ').next() == Some(method)).count()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::SeqCst);
        // Wakes the listener.
        let _ = TcpStream::connect(self.addr);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        self.close_open();
    }
}

fn connection(shared: &Arc<Shared>, client: &TcpStream, server: SocketAddr, fault: Fault) -> io::Result<()> {
    if fault == Fault::Refuse {
        return client.shutdown(Shutdown::Both);
    }
    client.set_nodelay(true)?;
    if let Fault::ResetDownstream(bytes) = fault {
        return reset(shared, client, server, bytes);
    }
    lock(&shared.open).push(client.try_clone()?);
    let judge = lock(&shared.judge).clone();
    if let (Fault::Pass, Some(judge)) = (fault, &judge) {
        let done = converse(shared, client, server, judge);
        if matches!(done, Ok(End::Reset)) {
            // Only the last copy that is closed resets, so none may be left here.
            let own = client.peer_addr()?;
            lock(&shared.open).retain(|stream| stream.peer_addr().is_ok_and(|addr| addr != own));
        } else {
            let _ = client.shutdown(Shutdown::Both);
        }
        return done.map(drop);
    }
    match fault {
        Fault::Stall => watch(shared, client, &mut io::sink(), &mut Requests::default(), u64::MAX, false),
        Fault::Answer503 | Fault::Answer500 => {
            let (status, code, text) = match fault {
                Fault::Answer503 => ("503 Service Unavailable", "SlowDown", "Please reduce your request rate."),
                _ => ("500 Internal Server Error", "InternalError", "We encountered an internal error."),
            };
            watch(shared, client, &mut io::sink(), &mut Requests::default(), u64::MAX, true)?;
            let body = format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Error><Code>{code}</Code><Message>{text}</Message></Error>"
            );
            let length = body.len();
            let head = lock(&shared.heads).last().cloned().unwrap_or_default();
            let body = if head.starts_with("HEAD ") { "" } else { &body };
            let mut answer = client;
            write!(
                answer,
                "HTTP/1.1 {status}\r\ncontent-type: application/xml\r\n\
                 content-length: {length}\r\nconnection: close\r\n\r\n{body}"
            )?;
            client.shutdown(Shutdown::Write)
        }
        fault => forward(shared, client, server, fault),
    }
}

fn forward(shared: &Arc<Shared>, client: &TcpStream, server: SocketAddr, fault: Fault) -> io::Result<()> {
    let upstream = TcpStream::connect(server)?;
    upstream.set_nodelay(true)?;
    lock(&shared.open).push(upstream.try_clone()?);
    let (up_limit, down_limit) = match fault {
        Fault::CutUpstream(bytes) | Fault::StallUpstream(bytes) => (bytes, u64::MAX),
        Fault::CutDownstream(bytes) | Fault::StallDownstream(bytes) => (u64::MAX, bytes),
        _ => (u64::MAX, u64::MAX),
    };
    let (from_server, to_client) = (upstream.try_clone()?, client.try_clone()?);
    let inner = Arc::clone(shared);
    let down = std::thread::spawn(move || {
        let _ = match fault {
            Fault::Slow(rate) => io::copy(&mut &from_server, &mut Slow { sink: &to_client, rate }),
            _ => io::copy(&mut (&from_server).take(down_limit), &mut &to_client),
        };
        if let Fault::StallDownstream(_) = fault {
            inner.wait_for_the_end();
        }
        let _ = to_client.shutdown(Shutdown::Both);
        let _ = from_server.shutdown(Shutdown::Both);
    });
    let damage = if let Fault::DamageBodies(bodies) = fault { bodies } else { 0 };
    let mut requests = Requests { damage, ..Requests::default() };
    let done = match fault {
        Fault::Slow(rate) => watch(shared, client, &mut Slow { sink: &upstream, rate }, &mut requests, up_limit, false),
        _ => watch(shared, client, &mut &upstream, &mut requests, up_limit, false),
    };
    if let Fault::StallUpstream(_) = fault {
        shared.wait_for_the_end();
    }
    // A client that has said everything may still wait for an answer; one that is cut off does not.
    let _ = upstream.shutdown(if up_limit == u64::MAX { Shutdown::Write } else { Shutdown::Both });
    if up_limit != u64::MAX {
        let _ = client.shutdown(Shutdown::Both);
    }
    let _ = down.join();
    done
}

/// Passes everything on until so many bytes went to the client, then resets its connection. No copy of the socket may be
/// left anywhere: only the last one that is closed resets.
fn reset(shared: &Shared, client: &TcpStream, server: SocketAddr, bytes: u64) -> io::Result<()> {
    let upstream = TcpStream::connect(server)?;
    std::thread::scope(|scope| {
        let up = scope.spawn(|| watch(shared, client, &mut &upstream, &mut Requests::default(), u64::MAX, false));
        let passed = io::copy(&mut (&upstream).take(bytes), &mut &*client);
        let _ = upstream.shutdown(Shutdown::Both);
        let _ = client.shutdown(Shutdown::Read);
        let _ = up.join();
        set_socket_linger(client, Some(Duration::ZERO))?;
        passed.map(drop)
    })
}

/// Takes what it is given at a rate, in pieces of which there are many a second.
struct Slow<'a> {
    sink: &'a TcpStream,
    rate: u64,
}

impl Write for Slow<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let piece = usize::try_from(self.rate / 50).unwrap_or(usize::MAX).clamp(1, bytes.len().max(1));
        let written = self.sink.write(&bytes[..piece.min(bytes.len())])?;
        std::thread::sleep(Duration::from_nanos(written as u64 * 1_000_000_000 / self.rate.max(1)));
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}

/// Forwards at most `limit` bytes from `client` to `sink`, taking down the head of each request. With `one_request`
/// it ends after the first whole request.
fn watch(
    shared: &Shared,
    mut client: &TcpStream,
    sink: &mut dyn Write,
    requests: &mut Requests,
    mut limit: u64,
    one_request: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 * 1024];
    while limit > 0 {
        let room = usize::try_from(limit).unwrap_or(usize::MAX).min(buffer.len());
        let read = client.read(&mut buffer[..room])?;
        if read == 0 {
            return Ok(());
        }
        limit -= read as u64;
        let whole = requests.take(&mut buffer[..read], &mut lock(&shared.heads));
        sink.write_all(&buffer[..read])?;
        if one_request && whole > 0 {
            return Ok(());
        }
    }
    Ok(())
}

/// Finds the requests in what a client says: heads, and bodies of an announced length.
#[derive(Debug, Default)]
struct Requests {
    head: Vec<u8>,
    body_left: u64,
    /// How many of the next bodies get a flipped bit.
    damage: usize,
    at_body_start: bool,
}

impl Requests {
    /// Takes the next bytes; gives how many requests ended in them.
    fn take(&mut self, mut bytes: &mut [u8], heads: &mut Vec<String>) -> usize {
        let mut whole = 0;
        while !bytes.is_empty() {
            if self.body_left > 0 {
                let skipped = usize::try_from(self.body_left).unwrap_or(usize::MAX).min(bytes.len());
                if std::mem::take(&mut self.at_body_start) && self.damage > 0 {
                    self.damage -= 1;
                    bytes[0] ^= 1;
                }
                self.body_left -= skipped as u64;
                bytes = &mut bytes[skipped..];
                whole += usize::from(self.body_left == 0);
                continue;
            }
            self.head.push(bytes[0]);
            bytes = &mut bytes[1..];
            if self.head.ends_with(b"\r\n\r\n") {
                let text = String::from_utf8_lossy(&std::mem::take(&mut self.head)).into_owned();
                let (line, headers) = text.split_once("\r\n").unwrap_or((&text, ""));
                let headers = headers.to_ascii_lowercase();
                let length = headers.lines().find_map(|header| header.strip_prefix("content-length:"));
                self.body_left = length.and_then(|length| length.trim().parse().ok()).unwrap_or(0);
                self.at_body_start = true;
                whole += usize::from(self.body_left == 0);
                // The case of values (checksums) matters, that of header names does not.
                let kept = text.split("\r\n").skip(1).map(|header| match header.split_once(':') {
                    Some((name, value)) => format!("{}:{value}", name.to_ascii_lowercase()),
                    None => header.to_owned(),
                });
                heads.push(std::iter::once(line.to_owned()).chain(kept).collect::<Vec<_>>().join("\n"));
            }
        }
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::Requests;

    #[test]
    fn requests_are_found_wherever_the_bytes_are_cut() {
        let said = b"PUT /a HTTP/1.1\r\nContent-Length: 5\r\nX-Sum: AbC=\r\n\r\nhelloHEAD /b HTTP/1.1\r\n\r\n".to_vec();
        for piece in 1..said.len() {
            let (mut requests, mut heads) = (Requests::default(), Vec::new());
            let whole: usize = said.clone().chunks_mut(piece).map(|bytes| requests.take(bytes, &mut heads)).sum();
            assert_eq!((whole, heads.len()), (2, 2), "in pieces of {piece}");
            assert!(heads[0].contains("x-sum: AbC="), "{}", heads[0]);
        }
    }

    #[test]
    fn bodies_are_damaged_as_often_as_asked() {
        let said = b"PUT /a HTTP/1.1\r\nContent-Length: 2\r\n\r\nhh".repeat(2);
        for piece in 1..said.len() {
            let (mut requests, mut sent) = (Requests { damage: 1, ..Requests::default() }, said.clone());
            for bytes in sent.chunks_mut(piece) {
                requests.take(bytes, &mut Vec::new());
            }
            let flipped: Vec<_> = sent.iter().zip(&said).enumerate().filter(|(_, (a, b))| a != b).collect();
            assert_eq!(flipped.iter().map(|(at, _)| *at).collect::<Vec<_>>(), [said.len() / 2 - 2]);
        }
    }
}
