//! A dump as the script that it is: where rows begin and end, whose they are, and whether it came to its end.
//!
//! `pg_restore -f -` writes an archive in the same form, so one reader serves all. It cuts the script where `psql` would:
//! quotes, dollar quotes, comments and rows are told apart, because a function's body may hold anything. What it never
//! does: judge SQL. Whoever imports a dump trusts it as far as a server would run it; only `psql`'s own commands
//! (`\connect`, `\!`), which act outside of the new database, are told, so that they can be refused.

mod statement;

use std::collections::BTreeSet;

use self::statement::{columns, from_stdin, is_about_database, roles};
use super::super::restore::sql::{Statement, statements};
use super::super::rows::{RowFormat, RowSplitter};
use crate::fingerprint::RowSum;

/// So much of a statement is kept: a COPY of 1,600 columns with the longest names fits several times.
const STATEMENT_BYTES: usize = 1 << 20;
/// So much of an INSERT is looked at.
const INSERT_BYTES: usize = 4 << 10;

/// The rows of a table as the script has them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Copied {
    pub(in super::super) schema: String,
    pub(in super::super) name: String,
    pub(in super::super) columns: Vec<String>,
    pub(in super::super) sum: RowSum,
    pub(in super::super) bytes: u64,
}

/// What was found in a script.
#[derive(Debug, Default)]
pub(in super::super) struct Found {
    /// Tables, in the order of their first rows.
    pub(in super::super) tables: Vec<Copied>,
    /// Tables with rows that are not counted, and why.
    pub(in super::super) uncounted: BTreeSet<String>,
    /// Roles that statements name.
    pub(in super::super) roles: BTreeSet<String>,
    /// Statements about the database itself.
    pub(in super::super) database: Vec<Statement>,
    /// `client_encoding`.
    pub(in super::super) encoding: Option<String>,
    /// The line that `pg_dump` begins with was seen.
    pub(in super::super) begun: bool,
    /// The line that `pg_dump` ends with was seen, outside of rows and statements.
    pub(in super::super) complete: bool,
    /// The line that `pg_dumpall` begins with was seen.
    pub(in super::super) cluster: bool,
    /// Of the server, such as `15.18`.
    pub(in super::super) server_version: Option<String>,
    /// Of `pg_dump`.
    pub(in super::super) client_version: Option<String>,
    /// When the dump was begun, as `pg_dump --verbose` writes it.
    pub(in super::super) started: Option<String>,
    /// The first command to `psql` that is not for the dump's own protection.
    pub(in super::super) command: Option<String>,
    /// Plaintext length.
    pub(in super::super) bytes: u64,
}

/// What a line was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Line {
    /// SQL, a comment, or nothing.
    Sql,
    /// A command to `psql`.
    Command,
    /// A row, or the end of rows.
    Row,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
enum At {
    #[default]
    Code,
    /// In a string; whether a backslash takes the next character with it.
    Text(bool),
    Name,
    Comment(u32),
    Dollar(Vec<u8>),
    Rows,
}

/// Reads a script as its bytes pass by.
#[derive(Debug)]
pub(in super::super) struct Script {
    at: At,
    /// The start of a line that is not whole yet.
    partial: Vec<u8>,
    /// The statement so far, without comments and bodies.
    statement: Vec<u8>,
    /// Inside of `BEGIN ATOMIC … END`, where semicolons end nothing.
    atomic: bool,
    /// Where names without a schema belong.
    schema: String,
    /// Plain strings take backslashes as they are.
    conforming: bool,
    rows: Option<(Target, RowSplitter, u64)>,
    found: Found,
}

/// Where rows go: a table, or somewhere that is not counted.
#[derive(Debug)]
enum Target {
    Table { schema: String, name: String, columns: Vec<String> },
    Unknown(String),
}

impl Default for Script {
    fn default() -> Self {
        Self {
            at: At::Code,
            partial: Vec::new(),
            statement: Vec::new(),
            atomic: false,
            schema: String::new(),
            conforming: true,
            rows: None,
            found: Found::default(),
        }
    }
}

impl Script {
    /// Takes the next bytes; tells of each whole line (with its end) what it was.
    pub(in super::super) fn feed(&mut self, mut bytes: &[u8], mut told: impl FnMut(&[u8], Line)) {
        self.found.bytes += bytes.len() as u64;
        while let Some(end) = find(bytes) {
            let (line, rest) = bytes.split_at(end + 1);
            bytes = rest;
            if self.partial.is_empty() {
                let kind = self.line(line);
                told(line, kind);
            } else {
                let mut whole = std::mem::take(&mut self.partial);
                whole.extend_from_slice(line);
                let kind = self.line(&whole);
                told(&whole, kind);
            }
        }
        self.partial.extend_from_slice(bytes);
    }

    /// What was found. A last line without an end counts as one.
    pub(in super::super) fn finish(mut self) -> Found {
        if !self.partial.is_empty() {
            let mut line = std::mem::take(&mut self.partial);
            line.push(b'\n');
            self.line(&line);
        }
        let between = self.at == At::Code && self.statement.iter().all(u8::is_ascii_whitespace);
        self.found.complete &= between;
        self.found
    }

    /// What was found so far.
    pub(in super::super) fn found(&self) -> &Found {
        &self.found
    }

    fn line(&mut self, line: &[u8]) -> Line {
        if self.at == At::Rows {
            self.row(line);
            return Line::Row;
        }
        self.code(line)
    }

    fn row(&mut self, line: &[u8]) {
        if line != b"\\.\n" && line != b"\\.\r\n" {
            if let Some((_, splitter, bytes)) = &mut self.rows {
                splitter.feed(line);
                *bytes += line.len() as u64;
            }
            return;
        }
        self.at = At::Code;
        let Some((target, splitter, bytes)) = self.rows.take() else { return };
        match (target, splitter.finish()) {
            (Target::Table { schema, name, columns }, Some(sum)) => {
                // Partitions that are loaded through their root come as several blocks of it.
                let same = |table: &&mut Copied| table.schema == schema && table.name == name;
                match self.found.tables.iter_mut().find(same) {
                    Some(table) if table.columns == columns => {
                        table.sum.merge(&sum);
                        table.bytes += bytes;
                    }
                    Some(_) => {
                        self.found.uncounted.insert(format!("`{schema}.{name}` has rows with other columns"));
                    }
                    None => self.found.tables.push(Copied { schema, name, columns, sum, bytes }),
                }
            }
            (Target::Table { schema, name, .. }, None) => {
                self.found.uncounted.insert(format!("`{schema}.{name}` has rows that are cut"));
            }
            (Target::Unknown(why), _) => {
                self.found.uncounted.insert(why);
            }
        }
    }

    fn code(&mut self, line: &[u8]) -> Line {
        let fresh = self.at == At::Code && self.statement.iter().all(u8::is_ascii_whitespace);
        if fresh && line.starts_with(b"--") && !line.trim_ascii_end().contains(&b'\r') {
            self.remark(line);
            return Line::Sql;
        }
        // Anything behind the last line that is not a comment: then that was not the last one.
        if fresh && !line.trim_ascii().is_empty() && !line.starts_with(b"\\") {
            self.found.complete = false;
        }
        let mut at = 0;
        while at < line.len() {
            let rest = &line[at..];
            match &self.at {
                At::Rows => return Line::Sql,
                At::Code => {
                    if rest.starts_with(b"--") {
                        // To psql a carriage return ends it as well.
                        let Some(end) = rest.iter().position(|byte| *byte == b'\r') else { break };
                        at += end + 1;
                        continue;
                    }
                    if rest.starts_with(b"/*") {
                        self.at = At::Comment(1);
                        at += 2;
                        continue;
                    }
                    match rest[0] {
                        b'\\' => {
                            self.command(&line[..at], rest);
                            return Line::Command;
                        }
                        b'\'' => {
                            let before = self.statement.last().map(u8::to_ascii_uppercase);
                            let word = self.statement.len().checked_sub(2).map(|at| self.statement[at]);
                            let escapes = before == Some(b'E') && !word.is_some_and(is_word);
                            self.at = At::Text(escapes || !self.conforming);
                        }
                        b'"' => self.at = At::Name,
                        b'$' if !self.statement.last().copied().is_some_and(is_word) => {
                            if let Some(tag) = tag(rest) {
                                at += tag.len();
                                self.at = At::Dollar(tag.to_vec());
                                // Stands for the body.
                                self.keep(b"''");
                                continue;
                            }
                        }
                        // In a body it is no end, but for the one behind its last word.
                        b';' if self.atomic && line.trim_ascii() != b"END;" => {}
                        b';' => {
                            self.end();
                            at += 1;
                            continue;
                        }
                        _ => {}
                    }
                    self.keep(&rest[..1]);
                    at += 1;
                    if rest[0].eq_ignore_ascii_case(&b'c') {
                        self.look_for_atomic();
                    }
                }
                At::Text(escapes) => {
                    let escapes = *escapes;
                    if rest[0] == b'\\' && escapes && rest.len() > 1 {
                        self.keep(&rest[..2]);
                        at += 2;
                        continue;
                    }
                    if rest[0] == b'\'' {
                        // A doubled one ends and begins again, which comes to the same.
                        self.at = At::Code;
                    }
                    self.keep(&rest[..1]);
                    at += 1;
                }
                At::Name => {
                    if rest[0] == b'"' {
                        self.at = At::Code;
                    }
                    self.keep(&rest[..1]);
                    at += 1;
                }
                At::Comment(depth) => {
                    let depth = *depth;
                    if rest.starts_with(b"*/") {
                        self.at = if depth == 1 { At::Code } else { At::Comment(depth - 1) };
                        at += 2;
                    } else if rest.starts_with(b"/*") {
                        self.at = At::Comment(depth + 1);
                        at += 2;
                    } else {
                        at += 1;
                    }
                }
                At::Dollar(tag) => {
                    if rest.starts_with(tag) {
                        at += tag.len();
                        self.at = At::Code;
                    } else {
                        at += 1;
                    }
                }
            }
        }
        Line::Sql
    }

    fn keep(&mut self, bytes: &[u8]) {
        if self.statement.len() < STATEMENT_BYTES {
            self.statement.extend_from_slice(bytes);
        }
    }

    /// The body of a function in SQL: `BEGIN ATOMIC`, which `pg_dump` writes on one line.
    fn look_for_atomic(&mut self) {
        const WORDS: &[u8] = b"BEGIN ATOMIC";
        let tail = self.statement.len().checked_sub(WORDS.len()).map(|at| &self.statement[at..]);
        let create = |head: &[u8]| head.get(..6).is_some_and(|word| word.eq_ignore_ascii_case(b"CREATE"));
        let found = tail.is_some_and(|tail| tail.eq_ignore_ascii_case(WORDS));
        self.atomic = self.atomic || (found && create(self.statement.trim_ascii_start()));
    }

    /// A comment between statements: `pg_dump` says there what it is.
    fn remark(&mut self, line: &[u8]) {
        let text = String::from_utf8_lossy(line);
        let text = text.trim_end();
        let version = |rest: &str| rest.split(' ').next().unwrap_or_default().to_owned();
        let found = &mut self.found;
        match text {
            "-- PostgreSQL database dump" => found.begun = true,
            "-- PostgreSQL database dump complete" => found.complete = true,
            "-- PostgreSQL database cluster dump" => found.cluster = true,
            _ => {}
        }
        if let Some(rest) = text.strip_prefix("-- Dumped from database version ") {
            found.server_version.get_or_insert_with(|| version(rest));
        } else if let Some(rest) = text.strip_prefix("-- Dumped by pg_dump version ") {
            found.client_version.get_or_insert_with(|| version(rest));
        } else if let Some(rest) = text.strip_prefix("-- Started on ") {
            found.started.get_or_insert_with(|| rest.to_owned());
        }
    }

    fn command(&mut self, before: &[u8], rest: &[u8]) {
        let text = String::from_utf8_lossy(rest);
        let word = text.split_ascii_whitespace().next().unwrap_or_default();
        // The whole line is left out on its way to psql: nothing else may be on it.
        let alone = before.iter().all(u8::is_ascii_whitespace);
        let between = alone && self.statement.iter().all(u8::is_ascii_whitespace);
        if !(between && matches!(word, "\\restrict" | "\\unrestrict")) {
            let word: String = word.chars().take(40).filter(|c| !c.is_control()).collect();
            self.found.command.get_or_insert(word);
        }
    }

    /// A statement has ended.
    fn end(&mut self) {
        self.atomic = false;
        let mut bytes = std::mem::take(&mut self.statement);
        let start = bytes.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(bytes.len());
        let begins = |word: &str| {
            bytes.get(start..start + word.len()).is_some_and(|head| head.eq_ignore_ascii_case(word.as_bytes()))
        };
        // How psql reads what follows must be how it is read here: only as `pg_dump` sets it.
        let setting = bytes.windows(27).any(|w| w.eq_ignore_ascii_case(b"standard_conforming_strings"));
        if setting && (begins("SET ") || begins("SELECT ")) {
            let text = String::from_utf8_lossy(&bytes).trim().to_ascii_lowercase();
            if !["on", "off"].iter().any(|value| text == format!("set standard_conforming_strings = {value}")) {
                self.found.command.get_or_insert_with(|| "standard_conforming_strings".to_owned());
            }
        }
        let insert = begins("INSERT ");
        let words = ["COPY ", "SET ", "GRANT ", "REVOKE ", "ALTER ", "COMMENT ON DATABASE ", "CREATE DATABASE "];
        let named = ["CREATE POLICY ", "CREATE SCHEMA ", "CREATE USER "];
        if !insert && !words.iter().chain(&named).any(|word| begins(word)) {
            bytes.clear();
            self.statement = bytes;
            return;
        }
        if insert {
            bytes.truncate(start + INSERT_BYTES);
        }
        bytes.push(b';');
        let (text, faithful) = self.decoded(&bytes);
        let cut = statements(&text);
        if let Some(statement) = cut.first() {
            self.statement(statement, faithful);
        }
        bytes.clear();
        self.statement = bytes;
    }

    /// A statement's text, and whether names in it are what they were.
    fn decoded(&self, bytes: &[u8]) -> (String, bool) {
        if self.found.encoding.as_deref() == Some("LATIN1") {
            return (bytes.iter().copied().map(char::from).collect(), true);
        }
        let faithful = bytes.is_ascii()
            || self.found.encoding.as_deref().is_none_or(|encoding| encoding == "UTF8")
                && std::str::from_utf8(bytes).is_ok();
        (String::from_utf8_lossy(bytes).into_owned(), faithful)
    }

    fn statement(&mut self, statement: &Statement, faithful: bool) {
        let token = |at: usize| statement.tokens.get(at).map(|token| token.text.as_str()).unwrap_or_default();
        if let Some(stdin) = from_stdin(statement) {
            self.copy(statement, stdin, faithful);
        } else if statement.begins(&["SET", "search_path"]) {
            // As `pg_dump` wrote until 2018.
            token(3).clone_into(&mut self.schema);
        } else if statement.begins(&["SET", "client_encoding"]) {
            self.found.encoding = Some(token(3).to_ascii_uppercase());
        } else if statement.begins(&["SET", "standard_conforming_strings"]) {
            self.conforming = !token(3).eq_ignore_ascii_case("off");
        } else if statement.begins(&["INSERT", "INTO"]) {
            let (schema, name, _) = self.relation(statement, 2);
            let table = if schema.is_empty() { name } else { format!("{schema}.{name}") };
            self.found.uncounted.insert(format!("`{table}` has its rows in INSERT statements"));
        } else {
            self.found.roles.extend(roles(statement));
            if faithful && is_about_database(statement) {
                self.found.database.push(statement.clone());
            }
        }
    }

    /// The relation whose name begins at a token: schema, name, and the token behind.
    fn relation(&self, statement: &Statement, at: usize) -> (String, String, usize) {
        let token = |at: usize| statement.tokens.get(at).map(|token| token.text.clone()).unwrap_or_default();
        if token(at + 1) == "." { (token(at), token(at + 2), at + 3) } else { (self.schema.clone(), token(at), at + 1) }
    }

    fn copy(&mut self, statement: &Statement, stdin: usize, faithful: bool) {
        let (schema, name, next) = self.relation(statement, 1);
        let columns = columns(statement, next);
        let plain = statement.tokens.len() == stdin + 1;
        let target = if !faithful || schema.is_empty() || !plain {
            Target::Unknown(format!("`{schema}.{name}` is copied in a way that is not counted"))
        } else {
            Target::Table { schema, name, columns: columns.unwrap_or_default() }
        };
        self.rows = Some((target, RowSplitter::new(RowFormat::Dump, 0), 0));
        self.at = At::Rows;
    }
}

fn find(bytes: &[u8]) -> Option<usize> {
    use std::io::BufRead as _;
    let mut cursor = bytes;
    // Reading from memory cannot fail; the standard library's search is a fast one.
    let taken = cursor.skip_until(b'\n').unwrap_or(0);
    taken.checked_sub(1).filter(|last| bytes[*last] == b'\n')
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$' || !byte.is_ascii()
}

/// A dollar quote's tag at the start of `bytes`, with both dollars.
fn tag(bytes: &[u8]) -> Option<&[u8]> {
    let inside = bytes[1..].iter().take_while(|byte| is_word(**byte) && **byte != b'$').count();
    let good = bytes.get(1 + inside) == Some(&b'$') && !bytes[1].is_ascii_digit();
    good.then(|| &bytes[..inside + 2])
}

#[cfg(test)]
mod tests;
