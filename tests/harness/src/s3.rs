//! An S3 server in this process: s3s-fs over a temporary directory, on 127.0.0.1 and a free port.
//!
//! What it is good for: signatures and checksums are verified, answers have S3's codes. What it is not (measured):
//! its `If-None-Match` is not atomic; a body refused for its checksum stays on its disk; there is no versioning and no
//! object lock. Keys of more than about 150 bytes are made to work by the module `long_keys`.

mod access;
mod lax;
mod listing;
mod long_keys;

pub use access::Requests;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// The authority that signed the certificate of [`S3Server::start_tls`], PEM.
pub const CA_PEM: &str = include_str!("../tls/ca.pem");

/// A bucket that answers, and the keys for it.
#[derive(Debug, Clone)]
pub struct Bucket {
    /// `http://127.0.0.1:port`, or with `https`.
    pub endpoint: String,
    /// Name of the bucket, which exists.
    pub bucket: String,
    /// Region to sign for.
    pub region: String,
    /// Access key id.
    pub access_key: String,
    /// Secret access key.
    pub secret_key: String,
}

impl Bucket {
    /// An endpoint outside the tests, from `BACKUP_TEST_S3_ENDPOINT`, `…_BUCKET`, `…_REGION` (default `us-east-1`),
    /// `…_ACCESS_KEY` and `…_SECRET_KEY`. `None` when the first is not set; an error when only some are.
    pub fn from_env() -> io::Result<Option<Self>> {
        let get = |name: &str| std::env::var(format!("BACKUP_TEST_S3_{name}")).ok().filter(|value| !value.is_empty());
        let Some(endpoint) = get("ENDPOINT") else { return Ok(None) };
        let need = |name: &str| get(name).ok_or_else(|| io::Error::other(format!("BACKUP_TEST_S3_{name} is not set")));
        Ok(Some(Self {
            endpoint,
            bucket: need("BUCKET")?,
            region: get("REGION").unwrap_or_else(|| "us-east-1".to_owned()),
            access_key: need("ACCESS_KEY")?,
            secret_key: need("SECRET_KEY")?,
        }))
    }
}

/// A running server. Dropping it stops it and removes its files.
#[derive(Debug)]
pub struct S3Server {
    /// How to reach it.
    pub bucket: Bucket,
    addr: SocketAddr,
    root: tempfile::TempDir,
    /// What was asked of it.
    pub requests: Requests,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl S3Server {
    /// Starts with one empty bucket and random keys.
    pub fn start() -> io::Result<Self> {
        Self::start_with(None, "http", false)
    }

    /// As [`S3Server::start`], but one that promises what it does not do: see the module `lax`.
    pub fn start_lax() -> io::Result<Self> {
        Self::start_with(None, "http", true)
    }

    /// As [`S3Server::start`], behind TLS with a certificate for 127.0.0.1 that [`CA_PEM`] signed.
    pub fn start_tls() -> io::Result<Self> {
        Self::start_with(Some(acceptor()?), "https", false)
    }

    fn start_with(tls: Option<TlsAcceptor>, scheme: &str, lax: bool) -> io::Result<Self> {
        let root = tempfile::Builder::new().prefix("backup-test-s3-").tempdir()?;
        // Random by the same source that names the directory: the keys differ between servers, that is all they must.
        let unique = root.path().to_string_lossy().replace(|c: char| !c.is_ascii_alphanumeric(), "");
        let (access_key, secret_key) = (format!("AK{unique}"), format!("SK{unique}c4n4ry"));
        let requests = Requests::default();
        let service = make(root.path(), "vault", &access_key, &secret_key, lax, requests.clone())?;
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("s3-server".to_owned()).spawn(move || {
            runtime.block_on(async {
                if let Ok(listener) = TcpListener::from_std(listener) {
                    let stopped = async { drop(stopped.await) };
                    serve(listener, service, tls, stopped, Duration::ZERO).await;
                }
            });
            runtime.shutdown_timeout(Duration::from_secs(1));
        })?;
        let bucket = Bucket {
            endpoint: format!("{scheme}://{addr}"),
            bucket: "vault".to_owned(),
            region: "us-east-1".to_owned(),
            access_key,
            secret_key,
        };
        Ok(Self { bucket, addr, root, requests, stop: Some(stop), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The same bucket with a key that may list and read only.
    pub fn reader(&self) -> Bucket {
        Bucket { access_key: format!("{}{}", self.bucket.access_key, access::READER), ..self.bucket.clone() }
    }

    /// The directory in which the bucket's bodies lie as plain files: for tests that damage them.
    pub fn files(&self) -> PathBuf {
        self.root.path().join(&self.bucket.bucket)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic in the server has already been printed; a second one here would hide the test's.
            let _ = thread.join();
        }
    }
}

/// The S3 service over `root`, in which the directory of `bucket` is made if missing.
pub fn service(root: &Path, bucket: &str, access_key: &str, secret_key: &str) -> io::Result<S3Service> {
    make(root, bucket, access_key, secret_key, false, Requests::default())
}

fn make(
    root: &Path,
    bucket: &str,
    access_key: &str,
    secret_key: &str,
    lax: bool,
    requests: Requests,
) -> io::Result<S3Service> {
    std::fs::create_dir_all(root.join(bucket))?;
    let files = s3s_fs::FileSystem::new(root).map_err(|error| io::Error::other(format!("{error:?}")))?;
    let files = long_keys::LongKeys::new(files, root);
    let mut builder = if lax { S3ServiceBuilder::new(lax::Lax::new(files)) } else { S3ServiceBuilder::new(files) };
    let mut keys = SimpleAuth::from_single(access_key, secret_key);
    keys.register(format!("{access_key}{}", access::READER), secret_key.into());
    builder.set_auth(keys);
    builder.set_access(access::Access(requests));
    Ok(builder.build())
}

/// Serves until `stopped`, then waits up to `grace` for open requests.
pub async fn serve(
    listener: TcpListener,
    service: S3Service,
    tls: Option<TlsAcceptor>,
    stopped: impl Future<Output = ()>,
    grace: Duration,
) {
    let graceful = Arc::new(GracefulShutdown::new());
    let mut stopped = std::pin::pin!(stopped);
    loop {
        let socket = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, _)) => socket,
                // Out of handles for a moment: the next connection may find one.
                Err(_) => continue,
            },
            () = &mut stopped => break,
        };
        // A head and a body are two writes: without this each answer waits for the client's delayed ACK.
        let _ = socket.set_nodelay(true);
        let (service, tls, watcher) = (service.clone(), tls.clone(), graceful.watcher());
        tokio::spawn(async move {
            match tls {
                None => connection(socket, service, watcher).await,
                Some(tls) => {
                    if let Ok(socket) = tls.accept(socket).await {
                        connection(socket, service, watcher).await;
                    }
                }
            }
        });
    }
    if let Some(graceful) = Arc::into_inner(graceful) {
        let _ = tokio::time::timeout(grace, graceful.shutdown()).await;
    }
}

async fn connection(
    socket: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    service: S3Service,
    watcher: hyper_util::server::graceful::Watcher,
) {
    let http = Builder::new(TokioExecutor::new());
    let served = http.serve_connection(TokioIo::new(socket), service).into_owned();
    // A client that goes away in the middle is what half of the tests are about.
    let _ = watcher.watch(served).await;
}

fn acceptor() -> io::Result<TlsAcceptor> {
    let chain = CertificateDer::from_pem_slice(include_bytes!("../tls/server.pem")).map_err(io::Error::other)?;
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("../tls/server.key")).map_err(io::Error::other)?;
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_no_client_auth()
        .with_single_cert(vec![chain], key)
        .map_err(io::Error::other)?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
