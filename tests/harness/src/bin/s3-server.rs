//! An S3 server over a directory, for trying the tool without a cloud. Not for anything that matters.
//!
//! `s3-server --root DIR --bucket B --access-key AK [--port N] [--secret-key SK]`; the secret is better given in
//! `S3_SERVER_SECRET_KEY`, where other users of the machine do not see it. Prints its address as the only line on
//! standard output when it is ready; ends on SIGTERM or SIGINT.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: s3-server --root DIR --bucket NAME --access-key KEY [--port N] [--secret-key SECRET]\n\
                     the secret may come from S3_SERVER_SECRET_KEY instead";

struct Args {
    root: PathBuf,
    bucket: String,
    port: u16,
    access_key: String,
    secret_key: String,
}

fn parse(given: impl Iterator<Item = String>, secret_in_env: Option<String>) -> Result<Args, String> {
    let (mut root, mut bucket, mut port, mut access_key, mut secret_key) = (None, None, 0, None, secret_in_env);
    let mut given = given;
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("`{name}` needs a value"))?;
        match name.as_str() {
            "--root" => root = Some(PathBuf::from(value)),
            "--bucket" => bucket = Some(value),
            "--port" => port = value.parse().map_err(|_| format!("`{value}` is not a port"))?,
            "--access-key" => access_key = Some(value),
            "--secret-key" => secret_key = Some(value),
            _ => return Err(format!("`{name}` is unknown")),
        }
    }
    Ok(Args {
        root: root.ok_or("`--root` is missing")?,
        bucket: bucket.ok_or("`--bucket` is missing")?,
        port,
        access_key: access_key.ok_or("`--access-key` is missing")?,
        secret_key: secret_key.filter(|secret| !secret.is_empty()).ok_or("the secret key is missing")?,
    })
}

async fn run(args: Args) -> io::Result<()> {
    let service = harness::s3::service(&args.root, &args.bucket, &args.access_key, &args.secret_key)?;
    let listener = TcpListener::bind(("127.0.0.1", args.port)).await?;
    // Before the address is printed: who reads it may at once ask us to end.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut out = io::stdout();
    writeln!(out, "http://{}", listener.local_addr()?)?;
    out.flush()?;
    let stopped = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    harness::s3::serve(listener, service, None, stopped, Duration::from_secs(5)).await;
    Ok(())
}

fn main() -> ExitCode {
    let mut err = io::stderr();
    let args = match parse(std::env::args().skip(1), std::env::var("S3_SERVER_SECRET_KEY").ok()) {
        Ok(args) => args,
        Err(wrong) => {
            let _ = writeln!(err, "s3-server: {wrong}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    match runtime.and_then(|runtime| runtime.block_on(run(args))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(err, "s3-server: {error}");
            ExitCode::FAILURE
        }
    }
}
