//! The manifest's text: UTF-8 lines in a fixed order, simple enough for `awk` and `while read` (byte by byte in `FORMAT.md`).
//!
//! ```text
//! backup-manifest 1
//! source postgres
//! stream 1 pg-table 2 8388608 <sha256>
//! extent <object> 0 4194304
//! extent <object> 0 4194304
//! copy COPY "public"."t" ("a", "b") FROM STDIN
//! table {"schema":"public",…}
//! property {"name":"database.name","value":"…"}
//! suspect "…"
//! config {…}
//! end 9
//! ```
//!
//! Names of things never stand on a line that a script must split: `copy` is the rest of its line, everything else that
//! holds names is JSON. Facts that change from run to run come last, so that equal data gives equal leading bytes.

use std::fmt::Write as _;
use std::str::FromStr;

use super::{Extent, Manifest, Member, Stream, StreamKind};
use crate::seal::MAX_PLAIN_BYTES;

/// The manifest cannot be understood, or contradicts itself.
#[derive(Debug, thiserror::Error)]
#[error("line {line} of the manifest: {reason}")]
pub struct ManifestError {
    /// Line number, from 1.
    pub line: usize,
    /// What is wrong.
    pub reason: String,
}

const HEAD: &str = "backup-manifest ";
const FORMAT: u64 = 1;

/// Writes the manifest.
pub fn write(manifest: &Manifest) -> String {
    let mut out = String::new();
    let _ = writeln!(out, "{HEAD}{FORMAT}\nsource {}", manifest.source_type);
    for (index, stream) in manifest.streams.iter().enumerate() {
        write_stream(&mut out, index + 1, stream);
    }
    for table in &manifest.tables {
        json_line(&mut out, "table", table);
    }
    for property in &manifest.properties {
        json_line(&mut out, "property", property);
    }
    for reason in &manifest.suspect {
        json_line(&mut out, "suspect", reason);
    }
    json_line(&mut out, "config", &manifest.config);
    let lines = out.bytes().filter(|b| *b == b'\n').count();
    let _ = writeln!(out, "end {lines}");
    out
}

fn write_stream(out: &mut String, number: usize, stream: &Stream) {
    let Stream { kind, bytes, sha256, extents, copy, members, paths } = stream;
    let _ = writeln!(out, "stream {number} {} {} {bytes} {sha256}", kind.word(), extents.len());
    for Extent { object, offset, bytes } in extents {
        let _ = writeln!(out, "extent {object} {offset} {bytes}");
    }
    if let Some(copy) = copy {
        let _ = writeln!(out, "copy {copy}");
    }
    for Member { number, bytes, copy } in members {
        let _ = writeln!(out, "member {number} {bytes}\ncopy {copy}");
    }
    for path in paths {
        json_line(out, "path", path);
    }
}

fn json_line<T: serde::Serialize>(out: &mut String, word: &str, value: &T) {
    let json = serde_json::to_string(value).expect("manifest values hold only what JSON can say");
    let _ = writeln!(out, "{word} {json}");
}

/// Reads a manifest, strictly: order, counts, sums and limits must hold.
pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
    let mut lines = Lines { rest: text, number: 0 };
    let head = lines.next()?;
    match head.strip_prefix(HEAD).and_then(|format| format.parse::<u64>().ok()) {
        Some(FORMAT) => {}
        Some(newer) if newer > FORMAT => {
            return Err(lines.refused(format!("it has format {newer}, and this program knows up to {FORMAT}")));
        }
        _ => return Err(lines.refused("it is not a manifest".to_owned())),
    }
    let source_type = lines.next()?;
    let source_type = source_type.strip_prefix("source ").ok_or_else(|| lines.refused("no `source`".to_owned()))?;
    let mut manifest = Manifest { source_type: source_type.to_owned(), ..Manifest::default() };
    let mut stage = Stage::Streams;
    loop {
        let line = lines.next()?;
        let (word, rest) = line.split_once(' ').ok_or_else(|| lines.refused("no word".to_owned()))?;
        if word == "end" {
            return finish(&lines, rest, stage, manifest);
        }
        let at = Stage::of(word).ok_or_else(|| lines.refused(format!("unknown word `{word}`")))?;
        if at < stage || (at == Stage::Config && stage == Stage::Config) {
            return Err(lines.refused(format!("`{word}` is out of order")));
        }
        stage = at;
        match word {
            "stream" => {
                let stream = stream(&mut lines, rest, manifest.streams.len() + 1)?;
                manifest.streams.push(stream);
            }
            "copy" | "member" | "path" => {
                let Some(stream) = manifest.streams.last_mut() else {
                    return Err(lines.refused(format!("`{word}` before any stream")));
                };
                belongs(&mut lines, stream, word, rest)?;
            }
            "table" => manifest.tables.push(json(&lines, rest)?),
            "property" => manifest.properties.push(json(&lines, rest)?),
            "suspect" => manifest.suspect.push(json(&lines, rest)?),
            _ => manifest.config = json(&lines, rest)?,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    Streams,
    Tables,
    Properties,
    Suspect,
    Config,
}

impl Stage {
    fn of(word: &str) -> Option<Self> {
        Some(match word {
            "stream" | "copy" | "member" | "path" => Self::Streams,
            "table" => Self::Tables,
            "property" => Self::Properties,
            "suspect" => Self::Suspect,
            "config" => Self::Config,
            _ => return None,
        })
    }
}

fn finish(lines: &Lines<'_>, count: &str, stage: Stage, manifest: Manifest) -> Result<Manifest, ManifestError> {
    if count.parse() != Ok(lines.number - 1) {
        return Err(lines.refused(format!("`end` counts {count} lines before it, and there are {}", lines.number - 1)));
    }
    if !lines.rest.is_empty() {
        return Err(lines.refused("something follows `end`".to_owned()));
    }
    if stage != Stage::Config {
        return Err(lines.refused("there is no `config`".to_owned()));
    }
    Ok(manifest)
}

fn stream(lines: &mut Lines<'_>, rest: &str, expected: usize) -> Result<Stream, ManifestError> {
    let [number, kind, count, bytes, sha256] = fields(lines, rest)?;
    if number.parse() != Ok(expected) {
        return Err(lines.refused(format!("stream {number} where {expected} should be")));
    }
    let kind = StreamKind::from_word(kind).map_err(|e| lines.refused(e.to_string()))?;
    let (count, bytes): (usize, u64) = (value(lines, count)?, value(lines, bytes)?);
    let sha256 = value(lines, sha256)?;
    let mut extents = Vec::new();
    let mut sum = 0;
    for _ in 0..count {
        let line = lines.next()?;
        let rest = line.strip_prefix("extent ").ok_or_else(|| lines.refused("fewer extents than stated".to_owned()))?;
        let [object, offset, bytes] = fields(lines, rest)?;
        let extent =
            Extent { object: value(lines, object)?, offset: value(lines, offset)?, bytes: value(lines, bytes)? };
        let end = extent.offset.checked_add(extent.bytes).and_then(|end| usize::try_from(end).ok());
        if extent.bytes == 0 || end.is_none_or(|end| end > MAX_PLAIN_BYTES) {
            return Err(lines.refused("an extent that no object can hold".to_owned()));
        }
        sum += u64::from(extent.bytes);
        extents.push(extent);
    }
    if sum != bytes {
        return Err(lines.refused(format!("the extents of stream {number} have {sum} bytes and not {bytes}")));
    }
    Ok(Stream { kind, bytes, sha256, extents, copy: None, members: Vec::new(), paths: Vec::new() })
}

fn belongs(lines: &mut Lines<'_>, stream: &mut Stream, word: &str, rest: &str) -> Result<(), ManifestError> {
    match (word, stream.kind) {
        ("copy", StreamKind::PgTable) if stream.copy.is_none() => stream.copy = Some(rest.to_owned()),
        ("member", StreamKind::PgTables) => {
            let [number, bytes] = fields(lines, rest)?;
            let (number, bytes): (usize, u64) = (value(lines, number)?, value(lines, bytes)?);
            if number != stream.members.len() + 1 {
                return Err(lines.refused(format!("member {number} is out of order")));
            }
            let line = lines.next()?;
            let copy = line.strip_prefix("copy ").ok_or_else(|| lines.refused("a member without `copy`".to_owned()))?;
            let number = u32::try_from(number).map_err(|e| lines.refused(e.to_string()))?;
            stream.members.push(Member { number, bytes, copy: copy.to_owned() });
        }
        ("path", StreamKind::Tar) => stream.paths.push(json(lines, rest)?),
        _ => return Err(lines.refused(format!("`{word}` does not belong to a `{}`", stream.kind.word()))),
    }
    Ok(())
}

fn fields<'a, const N: usize>(lines: &Lines<'_>, rest: &'a str) -> Result<[&'a str; N], ManifestError> {
    let fields: Vec<&str> = rest.split(' ').collect();
    fields.try_into().map_err(|found: Vec<&str>| lines.refused(format!("{} fields instead of {N}", found.len())))
}

fn value<T: FromStr>(lines: &Lines<'_>, text: &str) -> Result<T, ManifestError> {
    let refused = || lines.refused(format!("`{text}` is not what belongs here"));
    if text.starts_with('+') {
        return Err(refused());
    }
    text.parse().map_err(|_| refused())
}

fn json<T: serde::de::DeserializeOwned>(lines: &Lines<'_>, text: &str) -> Result<T, ManifestError> {
    serde_json::from_str(text).map_err(|e| lines.refused(e.to_string()))
}

struct Lines<'a> {
    rest: &'a str,
    number: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a str, ManifestError> {
        self.number += 1;
        let (line, rest) = self.rest.split_once('\n').ok_or_else(|| self.refused("it ends too early".to_owned()))?;
        self.rest = rest;
        Ok(line)
    }

    fn refused(&self, reason: String) -> ManifestError {
        ManifestError { line: self.number, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Hash256;
    use crate::manifest::Property;

    fn sample() -> Manifest {
        let extent = |n: u8, offset, bytes| Extent { object: Hash256([n; 32]), offset, bytes };
        let stream = |kind, extents: Vec<Extent>| Stream {
            kind,
            bytes: extents.iter().map(|e| u64::from(e.bytes)).sum(),
            sha256: Hash256([9; 32]),
            extents,
            copy: None,
            members: Vec::new(),
            paths: Vec::new(),
        };
        let mut table = stream(StreamKind::PgTable, vec![extent(1, 0, 5), extent(2, 7, 9)]);
        table.copy = Some("COPY \"a b\" (\"x\") FROM STDIN".into());
        let mut tables = stream(StreamKind::PgTables, vec![extent(3, 0, 1024)]);
        tables.members = vec![Member { number: 1, bytes: 2, copy: "COPY \"c\" FROM STDIN".into() }];
        Manifest {
            source_type: "postgres".into(),
            streams: vec![stream(StreamKind::PgArchive, vec![]), table, tables],
            tables: Vec::new(),
            properties: vec![Property { name: "database.name".into(), value: "a\nb".into() }],
            suspect: vec!["why \"not\"".into()],
            config: serde_json::json!({"stack": "x"}),
        }
    }

    #[test]
    fn what_is_written_is_read() {
        let text = write(&sample());
        assert_eq!(parse(&text).unwrap(), sample(), "{text}");
    }

    #[test]
    fn every_lost_doubled_or_moved_line_is_noticed() {
        let text = write(&sample());
        let lines: Vec<&str> = text.lines().collect();
        let join = |lines: &[&str]| lines.iter().fold(String::new(), |all, line| all + line + "\n");
        for i in 0..lines.len() {
            let mut lost = lines.clone();
            lost.remove(i);
            assert!(parse(&join(&lost)).is_err(), "without line {i}");
            let mut doubled = lines.clone();
            doubled.insert(i, lines[i]);
            assert!(parse(&join(&doubled)).is_err(), "line {i} doubled");
        }
        assert!(parse(&text[..text.len() - 1]).is_err());
        assert!(parse(&format!("{text}\n")).is_err());
        let newer = text.replace("backup-manifest 1", "backup-manifest 2");
        assert!(parse(&newer).unwrap_err().to_string().contains("format 2"));
        let outside = text.replace(" 7 9", " 4194300 9");
        assert!(parse(&outside).unwrap_err().to_string().contains("no object can hold"));
        let sum = text.replace(" 7 9", " 7 8");
        assert!(parse(&sum).unwrap_err().to_string().contains("13 bytes and not 14"));
    }
}
