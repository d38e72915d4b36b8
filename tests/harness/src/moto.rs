//! moto (`moto_server`), a mock of S3 in a process of its own, for what no small real server has: versions, delete markers,
//! Object Lock, a conditional PUT that is atomic.
//!
//! What it is not (measured, 5.2.5): it keeps everything in memory, checks neither keys nor checksums, answers 500 to
//! `GetObjectRetention` (a HEAD shows the lock), accepts a lock that ends in the past, and with a delimiter lists the folder
//! of a body that only a delete marker is left of, which S3 does not; it calls the root of `GetBucketVersioning`'s answer by
//! another name. Whoever wants those needs another server.
//!
//! Nobody checks signatures, so a test speaks as the bucket's owner or as an attacker by plain HTTP: [`Moto::ask`].

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::s3::Bucket;
use crate::tools;

/// How long it may take to start: an interpreter and many modules, on a busy machine.
const START: Duration = Duration::from_mins(1);

/// Without any it is the public that asks, which may not delete.
const NOBODY: &str =
    "AWS4-HMAC-SHA256 Credential=AKmoto/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";

/// What a bucket is made with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Neither versions nor locks.
    Plain,
    /// Versions.
    Versioned,
    /// Versions and Object Lock.
    Locked,
}

/// A running server. Dropping it ends it; so does the end of the thread that started it, however that comes about.
#[derive(Debug)]
pub struct Moto {
    addr: SocketAddr,
    child: Child,
    _log: tempfile::TempDir,
}

impl Moto {
    /// Starts one on a free port of 127.0.0.1. `None` where there is no `moto_server`, which is said aloud (`REQUIRE` knows it
    /// as `moto`).
    pub fn start() -> io::Result<Option<Self>> {
        let Some(program) = tools::tool("moto_server") else {
            tools::skip("moto for versions and locks", "there is no `moto_server` in the PATH");
            return Ok(None);
        };
        let dir = tempfile::Builder::new().prefix("backup-test-moto-").tempdir()?;
        let log = dir.path().join("log");
        let out = File::create(&log)?;
        // Killed with the thread that started it: a test that is killed itself cleans nothing up.
        let mut command = match tools::tool("setpriv") {
            Some(setpriv) => {
                let mut command = Command::new(setpriv);
                command.args(["--pdeathsig", "KILL"]).arg(program);
                command
            }
            None => Command::new(program),
        };
        command.args(["-H", "127.0.0.1", "-p", "0"]).stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let mut child = command.spawn()?;
        let begun = Instant::now();
        loop {
            let said = std::fs::read_to_string(&log)?;
            let at = said.split("http://").nth(1).and_then(|rest| rest.split_once('\n'));
            if let Some(addr) = at.and_then(|(addr, _)| addr.trim().parse().ok()) {
                return Ok(Some(Self { addr, child, _log: dir }));
            }
            if child.try_wait()?.is_some() || begun.elapsed() > START {
                let _ = child.kill();
                let _ = child.wait();
                return Err(io::Error::other(format!("moto_server did not start: {said}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Makes a bucket.
    pub fn bucket(&self, name: &str, kind: Kind) -> io::Result<Bucket> {
        let lock: &[(&str, &str)] =
            if kind == Kind::Locked { &[("x-amz-bucket-object-lock-enabled", "true")] } else { &[] };
        self.must("PUT", &format!("/{name}"), lock, "")?;
        if kind == Kind::Versioned {
            let on = "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>";
            self.must("PUT", &format!("/{name}?versioning"), &[], on)?;
        }
        Ok(Bucket {
            endpoint: format!("http://{}", self.addr),
            bucket: name.to_owned(),
            region: "us-east-1".to_owned(),
            access_key: "AKmoto".to_owned(),
            secret_key: "SKmoto".to_owned(),
        })
    }

    /// One request with a signature that nobody checks: status and body.
    pub fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(self.addr)?;
        let more: Vec<String> = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let more = more.concat();
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Length: {}\r\n\
             Authorization: {NOBODY}\r\n{more}\r\n{body}",
            self.addr,
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no answer to {method} {target}: {answer}")))?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, body.to_owned()))
    }

    /// The head of the answer to a HEAD.
    pub fn head(&self, target: &str) -> io::Result<String> {
        let mut stream = TcpStream::connect(self.addr)?;
        write!(
            stream,
            "HEAD {target} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nAuthorization: {NOBODY}\r\n\r\n",
            self.addr
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// [`Moto::ask`] that must end well.
    pub fn must(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &str) -> io::Result<String> {
        match self.ask(method, target, headers, body)? {
            (200..=299, body) => Ok(body),
            (status, body) => Err(io::Error::other(format!("{method} {target}: {status} {body}"))),
        }
    }

    /// The keys of the bucket's current bodies that contain `part`.
    pub fn keys(&self, bucket: &str, part: &str) -> io::Result<Vec<String>> {
        let listed = self.must("GET", &format!("/{bucket}?list-type=2&max-keys=1000"), &[], "")?;
        let keys = listed.split("<Key>").skip(1).filter_map(|rest| rest.split_once("</Key>"));
        Ok(keys.map(|(key, _)| key.to_owned()).filter(|key| key.contains(part)).collect())
    }
}

impl Drop for Moto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
