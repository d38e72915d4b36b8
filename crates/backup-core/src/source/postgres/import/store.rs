//! A dump's bytes: what kind of file they are, and their way into a stream.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use chrono::{DateTime, SubsecRound as _, Utc};
use tokio::io::{AsyncRead, AsyncReadExt as _};

use super::error::ImportError;
use super::script::{Found, Script};
use super::{Dump, DumpFormat, ImportOptions, InstantFrom};
use crate::source::postgres::child;
use crate::source::postgres::clients::Clients;
use crate::source::{FinishedStream, Sink, StreamWriter};

const READ_BYTES: usize = 128 << 10;
/// So much of a plain dump is looked at for what `pg_dump` says of it.
const HEAD_BYTES: usize = 64 << 10;
const BLOCK: usize = 512;

/// How a plain dump is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packed {
    No,
    Gzip,
    Zstd,
}

/// What the first bytes tell.
#[derive(Debug, Clone, Copy)]
pub(super) struct Looked {
    pub(super) format: DumpFormat,
    pub(super) packed: Packed,
}

const PG_DUMP: &str = "name a file or folder that `pg_dump` wrote, with -Fc, -Fd, -Ft or plain";

/// Looks at the first bytes.
pub(super) fn look(path: &Path) -> Result<Looked, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let not = |what: &str, hint| ImportError::NotADump { path: path.to_owned(), what: what.to_owned(), hint };
    let archive = |format| Ok(Looked { format, packed: Packed::No });
    if std::fs::metadata(path).map_err(failed)?.is_dir() {
        let toc = path.join("toc.dat");
        let there = std::fs::metadata(&toc).is_ok_and(|found| found.is_file());
        return if there { archive(DumpFormat::Directory) } else { Err(not("a folder without `toc.dat`", PG_DUMP)) };
    }
    let mut head = Vec::new();
    open(path)?.take(BLOCK as u64).read_to_end(&mut head).map_err(failed)?;
    let plain = |packed| Ok(Looked { format: DumpFormat::Plain, packed });
    let unpack = "unpack it first, then import what was in it";
    match &head[..] {
        [] => Err(not("it is empty", PG_DUMP)),
        [b'P', b'G', b'D', b'M', b'P', ..] => archive(DumpFormat::Custom),
        head if head.get(257..262) == Some(b"ustar") || head.starts_with(b"toc.dat\0") => {
            if head.starts_with(b"toc.dat\0") {
                whole_tar(path)?;
                archive(DumpFormat::Tar)
            } else {
                Err(not("a tar, but none that `pg_dump -Ft` wrote", unpack))
            }
        }
        [0x1f, 0x8b, ..] => plain(Packed::Gzip),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => plain(Packed::Zstd),
        [b'B', b'Z', b'h', ..] => Err(not("it is compressed with bzip2", unpack)),
        [0xfd, b'7', b'z', b'X', b'Z', ..] => Err(not("it is compressed with xz", unpack)),
        [b'P', b'K', 3, 4, ..] => Err(not("it is a zip file", unpack)),
        _ => plain(Packed::No),
    }
}

/// Walks over a tar's headers to its end mark: of one that was cut, `pg_restore` reads the end for ever.
fn whole_tar(path: &Path) -> Result<(), ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let cut =
        |at: u64| ImportError::Damaged { path: path.to_owned(), why: format!("the tar is not whole at byte {at}") };
    let mut file = open(path)?;
    let length = file.metadata().map_err(failed)?.len();
    let mut at = 0;
    loop {
        let mut block = [0; BLOCK];
        file.read_exact(&mut block).map_err(|_| cut(at))?;
        at += BLOCK as u64;
        if block.iter().all(|byte| *byte == 0) {
            let mut second = [0; BLOCK];
            file.read_exact(&mut second).map_err(|_| cut(at))?;
            return if second.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(cut(at)) };
        }
        let header = tar::Header::from_byte_slice(&block);
        let blank = |(at, byte): (usize, &u8)| u32::from(if (148..156).contains(&at) { b' ' } else { *byte });
        let sum: u32 = block.iter().enumerate().map(blank).sum();
        let bytes = header.entry_size().ok().and_then(|bytes| bytes.checked_next_multiple_of(BLOCK as u64));
        let next = bytes.and_then(|bytes| at.checked_add(bytes)).filter(|next| *next < length);
        at = match (header.cksum(), next) {
            (Ok(found), Some(next)) if found == sum => next,
            _ => return Err(cut(at)),
        };
        file.seek(SeekFrom::Start(at)).map_err(failed)?;
    }
}

/// Opens the file.
pub(super) fn open(path: &Path) -> Result<File, ImportError> {
    File::open(path).map_err(|source| ImportError::Read { path: path.to_owned(), source })
}

/// When the file was last written to; of a folder, its table of contents, which `pg_dump` writes last.
pub(super) fn modified(path: &Path) -> Result<DateTime<Utc>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let toc = path.join("toc.dat");
    let found = std::fs::metadata(&toc).or_else(|_| std::fs::metadata(path)).map_err(failed)?;
    let at: SystemTime = found.modified().map_err(failed)?;
    Ok(DateTime::<Utc>::from(at).trunc_subsecs(0))
}

/// What changes when somebody writes to a file: its length, its time to the nanosecond, and which file it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mark {
    path: PathBuf,
    bytes: u64,
    modified: (i64, i64),
    inode: u64,
}

/// The marks of a file, or of every file of a folder.
pub(super) fn marks(path: &Path) -> Result<Vec<Mark>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let files = if path.is_dir() { files(path)? } else { vec![path.to_owned()] };
    let mark = |path: PathBuf| {
        let found = std::fs::metadata(&path)?;
        let (bytes, modified, inode) = (found.len(), (found.mtime(), found.mtime_nsec()), found.ino());
        Ok(Mark { path, bytes, modified, inode })
    };
    files.into_iter().map(mark).collect::<Result<_, _>>().map_err(failed)
}

/// The files of a directory-format dump, sorted. There is nothing else in one.
fn files(path: &Path) -> Result<Vec<PathBuf>, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let mut found = Vec::new();
    for entry in std::fs::read_dir(path).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name();
        let plain = name.to_str().is_some_and(|name| {
            name.len() <= 90 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_')
        });
        if !plain || !entry.file_type().map_err(failed)?.is_file() {
            let what =
                format!("the folder holds `{}`, which no `pg_dump` wrote", name.to_string_lossy().escape_debug());
            let hint = "import a folder that holds the dump and nothing else";
            return Err(ImportError::NotADump { path: path.to_owned(), what, hint });
        }
        found.push(entry.path());
    }
    found.sort();
    Ok(found)
}

/// Streams an archive as it is; of a folder, a tar of its files: sorted, without owners and times.
pub(super) async fn archive(dump: &Dump, sink: &dyn Sink) -> Result<FinishedStream, ImportError> {
    let mut writer = sink.open(dump.format.stream()).await?;
    let path = &dump.options.path;
    if dump.format != DumpFormat::Directory {
        copy(path, &mut writer).await?;
        return Ok(writer.finish().await?);
    }
    for file in files(path)? {
        let failed = |source| ImportError::Read { path: file.clone(), source };
        let bytes = std::fs::metadata(&file).map_err(failed)?.len();
        let mut header = tar::Header::new_gnu();
        header.set_path(file.file_name().unwrap_or_default()).map_err(failed)?;
        header.set_size(bytes);
        header.set_mode(0o600);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        writer.write(Bytes::copy_from_slice(header.as_bytes())).await?;
        if copy(&file, &mut writer).await? != bytes {
            return Err(ImportError::Changed { path: file });
        }
        let padding = usize::try_from(bytes.next_multiple_of(BLOCK as u64) - bytes).unwrap_or(0);
        writer.write(Bytes::from(vec![0; padding])).await?;
    }
    writer.write(Bytes::from(vec![0; 2 * BLOCK])).await?;
    Ok(writer.finish().await?)
}

async fn copy(path: &Path, writer: &mut Box<dyn StreamWriter>) -> Result<u64, ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let mut file = tokio::fs::File::from_std(open(path)?);
    let mut total = 0;
    loop {
        let mut batch = BytesMut::with_capacity(READ_BYTES);
        while batch.len() < READ_BYTES && file.read_buf(&mut batch).await.map_err(failed)? > 0 {}
        if batch.is_empty() {
            return Ok(total);
        }
        total += batch.len() as u64;
        writer.write(batch.freeze()).await?;
    }
}

/// Reads a plain dump to its end, and streams its text where there is somewhere to.
pub(super) async fn script(
    path: &Path,
    packed: Packed,
    mut writer: Option<Box<dyn StreamWriter>>,
) -> Result<(Found, Option<FinishedStream>), ImportError> {
    let failed = |source| ImportError::Read { path: path.to_owned(), source };
    let (mut text, unpacker) = text(path, packed)?;
    let mut script = Script::default();
    loop {
        let mut batch = BytesMut::with_capacity(READ_BYTES);
        while batch.len() < READ_BYTES && text.read_buf(&mut batch).await.map_err(failed)? > 0 {}
        if batch.is_empty() {
            break;
        }
        script.feed(&batch, |_, _| {});
        if let Some(writer) = &mut writer {
            writer.write(batch.freeze()).await?;
        }
    }
    drop(text);
    unpacked(path, unpacker).await?;
    let stream = match writer {
        Some(writer) => Some(writer.finish().await?),
        None => None,
    };
    Ok((script.finish(), stream))
}

/// The program that unpacked a file must have ended well: only then was it all of it.
async fn unpacked(path: &Path, unpacker: Option<tokio::process::Child>) -> Result<(), ImportError> {
    let Some(mut child) = unpacker else { return Ok(()) };
    let stderr = child::tail(child.stderr.take()).await;
    let status = child.wait().await.map_err(|source| ImportError::Read { path: path.to_owned(), source })?;
    if status.success() { Ok(()) } else { Err(ImportError::Damaged { path: path.to_owned(), why: stderr }) }
}

type Text = Box<dyn AsyncRead + Send + Unpin>;

/// The text of a plain dump, and the program that unpacks it.
fn text(path: &Path, packed: Packed) -> Result<(Text, Option<tokio::process::Child>), ImportError> {
    let file = open(path)?;
    let program = match packed {
        Packed::No => return Ok((Box::new(tokio::fs::File::from_std(file)), None)),
        Packed::Gzip => "gzip",
        Packed::Zstd => "zstd",
    };
    let mut command = tokio::process::Command::new(program);
    command.args(["-d", "-c"]).stdin(file).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command.env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin").env("LC_ALL", "C");
    let start = |source| {
        let program = program.to_owned();
        ImportError::Postgres(crate::source::postgres::PostgresError::ClientStart { program, source })
    };
    let mut child = command.spawn().map_err(start)?;
    let text: Text = match child.stdout.take() {
        Some(pipe) => Box::new(pipe),
        None => Box::new(tokio::io::empty()),
    };
    Ok((text, Some(child)))
}

/// Reads the head of a plain dump.
pub(super) async fn inspect_plain(options: ImportOptions, looked: Looked) -> Result<Dump, ImportError> {
    let path = options.path.clone();
    let failed = |source| ImportError::Read { path: path.clone(), source };
    let (text, unpacker) = text(&path, looked.packed)?;
    let mut head = Vec::new();
    text.take(HEAD_BYTES as u64).read_to_end(&mut head).await.map_err(failed)?;
    if head.len() < HEAD_BYTES {
        unpacked(&path, unpacker).await?;
    } else {
        // It is not asked for more, and is killed.
        drop(unpacker);
    }
    let mut script = Script::default();
    script.feed(&head, |_, _| {});
    let found = script.found();
    let not = |what: &str, hint| ImportError::NotADump { path: path.clone(), what: what.to_owned(), hint };
    if head.starts_with(b"PGDMP") {
        return Err(not(
            "a custom-format archive that somebody compressed",
            "unpack it first, then import what was in it",
        ));
    }
    if found.cluster {
        let hint = "import a dump of each database: `pg_dump NAME` writes one";
        return Err(not("it is of `pg_dumpall`, which holds several databases", hint));
    }
    if !found.begun {
        return Err(not("it does not begin with `-- PostgreSQL database dump`", PG_DUMP));
    }
    let (server_version, client_version) = (found.server_version.clone(), found.client_version.clone());
    let started = found.started.as_deref().and_then(|text| super::archive::instant(text, options.timezone));
    let (instant, instant_from) = match (options.at, started) {
        (Some(at), _) => (at, InstantFrom::Operator),
        (None, Some(at)) => (at, InstantFrom::Dump),
        (None, None) => (modified(&path)?, InstantFrom::Modified),
    };
    Ok(Dump {
        format: DumpFormat::Plain,
        packed: looked.packed,
        instant,
        instant_from,
        database: options.database.clone(),
        server_version,
        client_version,
        clients: Clients::find(&options.clients, 0).await?,
        options,
    })
}
