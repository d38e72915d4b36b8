//! A client program whose standard output is a stream.
//!
//! A stream is finished only after the program has ended well: output cut short by a kill or an error is abandoned,
//! never taken for a short archive. Standard error is drained all the time (a full pipe would stop the program) and
//! only its tail is kept.

use bytes::BytesMut;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{ChildStdin, Command};

use super::error::PostgresError;
use crate::manifest::StreamKind;
use crate::source::{FinishedStream, Sink};

const READ_BYTES: usize = 128 * 1024;
const STDERR_BYTES: usize = 4096;

/// Runs `command` and streams its output into the sink, and into `tee` for as long as that takes it. Gives what it warned of as
/// well: a program that ends well may have left something out.
pub(super) async fn stream(
    mut command: Command,
    program: &str,
    kind: StreamKind,
    tee: Option<ChildStdin>,
    sink: &dyn Sink,
) -> Result<(FinishedStream, Vec<String>), PostgresError> {
    let io = |source| PostgresError::ClientStart { program: program.to_owned(), source };
    command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped());
    let mut child = command.spawn().map_err(io)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let pump = async {
        let mut writer = sink.open(kind).await?;
        let (mut stdout, mut tee) = (stdout, tee);
        while let Some(pipe) = stdout.as_mut() {
            let mut batch = BytesMut::with_capacity(READ_BYTES);
            while batch.len() < READ_BYTES && pipe.read_buf(&mut batch).await.map_err(io)? > 0 {}
            if batch.is_empty() {
                break;
            }
            let batch = batch.freeze();
            // The reader of the tee closes it when it has seen enough.
            if let Some(pipe) = tee.as_mut()
                && pipe.write_all(&batch).await.is_err()
            {
                tee = None;
            }
            writer.write(batch).await?;
        }
        Ok::<_, PostgresError>(writer)
    };
    let (writer, said) = futures::try_join!(pump, async { Ok(last_lines(stderr).await) })?;
    let status = child.wait().await.map_err(io)?;
    if !status.success() {
        let stderr = said.join(": ");
        return Err(PostgresError::ClientFailed { program: program.to_owned(), status: status.to_string(), stderr });
    }
    Ok((writer.finish().await?, said.into_iter().filter(|line| is_loss(line)).collect()))
}

/// Whether a line warns of something that is not in the output. That constraints go round in a circle is about dumps without
/// definitions; `pg_dump` says it of the tables of extensions.
fn is_loss(line: &str) -> bool {
    ["pg_dump: warning: ", "pg_dumpall: warning: "].iter().any(|program| line.starts_with(program))
        && !line.contains("circular foreign-key constraints")
}

/// The last bytes of a program's standard error, on one line.
pub(super) async fn tail(pipe: Option<impl AsyncRead + Unpin>) -> String {
    last_lines(pipe).await.join(": ")
}

/// The lines in the last bytes of a program's standard error.
async fn last_lines(pipe: Option<impl AsyncRead + Unpin>) -> Vec<String> {
    let (mut kept, mut block) = (Vec::new(), [0; 1024]);
    if let Some(mut pipe) = pipe {
        while let Ok(read @ 1..) = pipe.read(&mut block).await {
            kept.extend_from_slice(&block[..read]);
            kept.drain(..kept.len().saturating_sub(STDERR_BYTES));
        }
    }
    let text = String::from_utf8_lossy(&kept);
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect()
}
