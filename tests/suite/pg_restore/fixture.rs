//! A snapshot made by hand: `pg_dump`, `pg_dumpall` and `COPY` of stock programs, put together as a manifest says.

use async_trait::async_trait;
use backup_core::fingerprint::RowSum;
use backup_core::id::Hash256;
use backup_core::manifest::{Kept, Member, Part, Property, Stream, StreamKind, TableEntry};
use backup_core::source::postgres::restore::Snapshot;
use backup_core::source::{
    Captured, FinishedStream, Sink, SinkError, StreamError, StreamReader, StreamWriter, Streams,
};
use bytes::Bytes;
use harness::pg::Cluster;

/// Roles and the database; run on `postgres`.
pub(crate) const ROLES: &str = r#"
    CREATE ROLE app LOGIN PASSWORD 'secret;--''"'; CREATE ROLE "Read Only"; GRANT "Read Only" TO app;
    ALTER ROLE app SET work_mem = '5MB'; COMMENT ON ROLE app IS 'it''s; the app';
    CREATE DATABASE shop OWNER app CONNECTION LIMIT 17;
    COMMENT ON DATABASE shop IS E'the shop''s \\ data';
    REVOKE TEMPORARY ON DATABASE shop FROM PUBLIC; GRANT CREATE ON DATABASE shop TO "Read Only" WITH GRANT OPTION;
    ALTER DATABASE shop SET search_path TO "$user", public, "odd, one";
    ALTER DATABASE shop SET default_transaction_read_only = off;
    ALTER ROLE app IN DATABASE shop SET statement_timeout = '1ms';
    ALTER ROLE postgres IN DATABASE shop SET statement_timeout = '1h';
"#;

/// One of everything that is hard to bring back.
pub(crate) const SAMPLE: &str = r#"
    CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy', 'b', 'c', 'd', 'e', 'f', 'g', 'h');
    CREATE DOMAIN price AS numeric(12,4) CHECK (VALUE >= 0);
    CREATE SCHEMA "odd, one";
    CREATE TABLE item (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, cost price,
        twice numeric GENERATED ALWAYS AS (cost * 2) STORED, gone int, at timestamptz, raw bytea, tags text[]);
    ALTER TABLE item DROP COLUMN gone;
    INSERT INTO item (name, cost, at, raw, tags)
        SELECT 'x' || g || E'\t\n\\ \u00e9', g / 7.0, '2024-01-01'::timestamptz + g * interval '1 min',
               decode(md5(g::text), 'hex'), ARRAY['a,b', NULL, '"'] FROM generate_series(1, 4000) g;
    INSERT INTO item (name, cost) VALUES (NULL, NULL), ('', 0), ('\.', 1), ('\N', 2);
    CREATE INDEX item_name ON item (lower(name));
    CREATE TABLE buyer (id int PRIMARY KEY, name text); INSERT INTO buyer SELECT g, 'b' || g FROM generate_series(1, 50) g;
    CREATE TABLE seller (id int PRIMARY KEY, name text); INSERT INTO seller SELECT g, 's' || g FROM generate_series(1, 50) g;
    CREATE TABLE sale (id bigserial PRIMARY KEY, item int REFERENCES item, buyer int REFERENCES buyer, how mood);
    INSERT INTO sale (item, buyer, how) SELECT g, g % 50 + 1, 'ok' FROM generate_series(1, 200) g;
    CREATE UNIQUE INDEX sale_once ON sale (item, buyer) WHERE how <> 'sad';
    CREATE FUNCTION known(int) RETURNS bool LANGUAGE sql AS 'SELECT EXISTS (SELECT FROM public.buyer WHERE id = $1)';
    CREATE TABLE checked (buyer int CHECK (known(buyer)), filler text);
    INSERT INTO checked SELECT g % 50 + 1, repeat('z', 100) FROM generate_series(1, 2000) g;
    CREATE TABLE tree (how mood, n int) PARTITION BY HASH (how);
    CREATE TABLE tree_0 PARTITION OF tree FOR VALUES WITH (MODULUS 3, REMAINDER 0);
    CREATE TABLE tree_1 PARTITION OF tree FOR VALUES WITH (MODULUS 3, REMAINDER 1);
    CREATE TABLE tree_2 (n int, how mood);
    DROP TABLE tree_2; CREATE TABLE tree_2 PARTITION OF tree FOR VALUES WITH (MODULUS 3, REMAINDER 2);
    INSERT INTO tree SELECT m, g FROM unnest(enum_range(NULL::mood)) m, generate_series(1, 9) g;
    CREATE TABLE days (day date, n int) PARTITION BY RANGE (day);
    CREATE TABLE days_a PARTITION OF days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE days_b PARTITION OF days DEFAULT;
    INSERT INTO days SELECT '2024-12-01'::date + g, g FROM generate_series(1, 90) g;
    CREATE TABLE parent (n int); CREATE TABLE child (extra text) INHERITS (parent);
    INSERT INTO parent VALUES (1); INSERT INTO child VALUES (2, 'two');
    CREATE TABLE nothing_in_it (); INSERT INTO nothing_in_it DEFAULT VALUES; INSERT INTO nothing_in_it DEFAULT VALUES;
    CREATE UNLOGGED TABLE fast (v jsonb, f float8); INSERT INTO fast VALUES ('{"a": [1, null]}', 0.1), (NULL, 'NaN');
    CREATE TABLE "odd, one"."Ta""ble; --" ("Sel ect" int, "ü" text);
    INSERT INTO "odd, one"."Ta""ble; --" VALUES (1, 'ü'), (2, NULL);
    CREATE TABLE in_archive (n int); INSERT INTO in_archive VALUES (1), (2), (3);
    CREATE MATERIALIZED VIEW totals AS SELECT buyer, count(*) FROM sale GROUP BY buyer;
    CREATE VIEW cheap AS SELECT * FROM item WHERE cost < 10;
    CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'triggers must not run'; END $$;
    CREATE TRIGGER shout BEFORE INSERT ON seller FOR EACH ROW EXECUTE FUNCTION shout();
    CREATE RULE quiet AS ON INSERT TO buyer DO INSTEAD NOTHING;
    ALTER TABLE sale ENABLE ROW LEVEL SECURITY; ALTER TABLE sale FORCE ROW LEVEL SECURITY;
    ALTER TABLE buyer OWNER TO app; GRANT SELECT (id) ON seller TO "Read Only"; COMMENT ON TABLE item IS 'things';
    CREATE SEQUENCE lonely START 5; SELECT nextval('lonely'), nextval('lonely');
    SELECT lo_from_bytea(0, decode(repeat('ab', 700000), 'hex'));
    CREATE STATISTICS both_columns ON item, buyer FROM sale;
"#;

#[derive(Clone)]
pub(crate) struct Fixture {
    pub(crate) streams: Vec<Stream>,
    /// Of stream number *n* at *n - 1*.
    pub(crate) bytes: Vec<Vec<u8>>,
    pub(crate) tables: Vec<TableEntry>,
    pub(crate) properties: Vec<Property>,
    /// Index of a stream that ends in an error instead of its end.
    pub(crate) truncated: Option<usize>,
}

struct Found {
    schema: String,
    name: String,
    columns: Vec<String>,
    rows: Vec<u8>,
}

impl Found {
    fn statement(&self) -> String {
        let columns: Vec<String> = self.columns.iter().map(|name| quoted(name)).collect();
        let columns = if columns.is_empty() { String::new() } else { format!(" ({})", columns.join(", ")) };
        format!("COPY {}.{}{columns}", quoted(&self.schema), quoted(&self.name))
    }
}

impl Fixture {
    /// Captures a database at rest.
    pub(crate) fn capture(cluster: &Cluster, database: &str) -> Self {
        let mut fixture = Self {
            streams: Vec::new(),
            bytes: Vec::new(),
            tables: Vec::new(),
            properties: properties(cluster, database),
            truncated: None,
        };
        let found = tables(cluster, database);
        let globals = output(cluster, database, "pg_dumpall", &["--globals-only".to_owned()]);
        fixture.push(StreamKind::PgGlobals, globals, None, Vec::new());
        let mut arguments = vec!["-Fc".to_owned(), "-Z0".to_owned()];
        let streamed = found.iter().filter(|table| table.name != "in_archive");
        arguments.extend(streamed.map(|t| format!("--exclude-table-data={}.{}", quoted(&t.schema), quoted(&t.name))));
        fixture.push(StreamKind::PgArchive, output(cluster, database, "pg_dump", &arguments), None, Vec::new());
        let mut small = Vec::new();
        for table in found {
            let (kept, parts) = match table.name.as_str() {
                "in_archive" => (Kept::Archive, Vec::new()),
                "item" => {
                    let middle = table.rows.len() / 2;
                    let cut = middle + table.rows[middle..].iter().position(|b| *b == b'\n').unwrap() + 1;
                    let first = fixture.part(&table, table.rows[..cut].to_vec(), Some((0, Some(10))));
                    (Kept::Streamed, vec![first, fixture.part(&table, table.rows[cut..].to_vec(), Some((10, None)))])
                }
                "checked" => (Kept::Streamed, vec![fixture.part(&table, table.rows.clone(), None)]),
                _ => {
                    small.push((table.statement(), table.rows.clone()));
                    let member = u32::try_from(small.len()).unwrap();
                    (Kept::Streamed, vec![part(0, Some(member), &table.rows, None)])
                }
            };
            let sum = sum(&table.rows);
            fixture.tables.push(TableEntry {
                schema: table.schema,
                name: table.name,
                kept,
                rows: sum.rows,
                bytes: if kept == Kept::Archive { 0 } else { table.rows.len() as u64 },
                fingerprint: sum.fingerprint,
                format: "text".to_owned(),
                columns: table.columns,
                types: Vec::new(),
                encoding: "UTF8".to_owned(),
                parts,
            });
        }
        let members = (1..).zip(&small).map(|(number, (copy, rows))| Member {
            number,
            bytes: rows.len() as u64,
            copy: format!("{copy} FROM STDIN"),
        });
        let members = members.collect();
        let contents: Vec<Vec<u8>> = small.into_iter().map(|(_, rows)| rows).collect();
        let tar = fixture.push(StreamKind::PgTables, tar_of(&contents), None, members);
        for part in fixture.tables.iter_mut().flat_map(|table| &mut table.parts).filter(|part| part.stream == 0) {
            part.stream = tar;
        }
        fixture
    }

    fn part(&mut self, table: &Found, rows: Vec<u8>, blocks: Option<(u64, Option<u64>)>) -> Part {
        let copy = format!("{} FROM STDIN", table.statement());
        let part = part(0, None, &rows, blocks);
        Part { stream: self.push(StreamKind::PgTable, rows, Some(copy), Vec::new()), ..part }
    }

    fn push(&mut self, kind: StreamKind, bytes: Vec<u8>, copy: Option<String>, members: Vec<Member>) -> u32 {
        let (length, sha256) = (bytes.len() as u64, Hash256::of(&bytes));
        self.bytes.push(bytes);
        self.streams.push(Stream {
            kind,
            bytes: length,
            sha256,
            extents: Vec::new(),
            copy,
            members,
            paths: Vec::new(),
        });
        u32::try_from(self.streams.len()).unwrap()
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        Snapshot { streams: &self.streams, tables: &self.tables, properties: &self.properties }
    }

    pub(crate) fn table(&mut self, name: &str) -> &mut TableEntry {
        self.tables.iter_mut().find(|table| table.name == name).unwrap()
    }

    /// Index of the stream that holds a part.
    pub(crate) fn stream_of(&self, name: &str, part: usize) -> usize {
        self.tables.iter().find(|table| table.name == name).unwrap().parts[part].stream as usize - 1
    }

    pub(crate) fn archive(&self) -> usize {
        self.streams.iter().position(|stream| stream.kind == StreamKind::PgArchive).unwrap()
    }

    /// Swaps the contents of two members of the tar.
    pub(crate) fn swap_members(&mut self, left: &str, right: &str) {
        let stream = self.stream_of(left, 0);
        let number = |name: &str| {
            let table = self.tables.iter().find(|table| table.name == name).unwrap();
            table.parts[0].member.unwrap() as usize - 1
        };
        let (left, right) = (number(left), number(right));
        let mut archive = tar::Archive::new(self.bytes[stream].as_slice());
        let mut contents: Vec<Vec<u8>> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut rows = Vec::new();
                std::io::Read::read_to_end(&mut entry.unwrap(), &mut rows).unwrap();
                rows
            })
            .collect();
        contents.swap(left, right);
        self.bytes[stream] = tar_of(&contents);
    }
}

#[async_trait]
impl Streams for Fixture {
    async fn open(&self, number: u32) -> Result<Box<dyn StreamReader>, StreamError> {
        let index = number as usize - 1;
        let bytes = Bytes::from(self.bytes[index].clone());
        Ok(Box::new(Reader { bytes, fails: self.truncated == Some(index) }))
    }
}

struct Reader {
    bytes: Bytes,
    fails: bool,
}

#[async_trait]
impl StreamReader for Reader {
    async fn next(&mut self) -> Result<Option<Bytes>, StreamError> {
        if !self.bytes.is_empty() {
            let length = self.bytes.len().min(70_001);
            return Ok(Some(self.bytes.split_to(length)));
        }
        if self.fails { Err(StreamError("the stream is not whole".into())) } else { Ok(None) }
    }
}

fn part(stream: u32, member: Option<u32>, rows: &[u8], blocks: Option<(u64, Option<u64>)>) -> Part {
    let sum = sum(rows);
    Part { stream, member, blocks, rows: sum.rows, fingerprint: sum.fingerprint }
}

fn sum(rows: &[u8]) -> RowSum {
    let mut sum = RowSum::default();
    for row in rows.split_inclusive(|b| *b == b'\n') {
        sum.add(row.strip_suffix(b"\n").unwrap());
    }
    sum
}

fn tar_of(contents: &[Vec<u8>]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (number, rows) in (1..).zip(contents) {
        let mut header = tar::Header::new_ustar();
        header.set_size(rows.len() as u64);
        header.set_mode(0o600);
        builder.append_data(&mut header, format!("{number:08}.copy"), rows.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn output(cluster: &Cluster, database: &str, program: &str, arguments: &[String]) -> Vec<u8> {
    let mut command = cluster.client(program, database);
    command.env("PGOPTIONS", "-c TimeZone=UTC -c extra_float_digits=3 -c statement_timeout=0 -c row_security=off");
    let output = command.args(arguments).output().unwrap();
    assert!(output.status.success(), "{program}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

fn tables(cluster: &Cluster, database: &str) -> Vec<Found> {
    let sql = "SELECT coalesce(json_agg(json_build_array(n.nspname, c.relname, ARRAY(SELECT attname FROM pg_attribute a \
               WHERE a.attrelid = c.oid AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum)) \
               ORDER BY 1, c.relname), '[]') FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace \
               WHERE relkind = 'r' AND n.nspname !~ '^pg_|^information_schema'";
    let found: Vec<(String, String, Vec<String>)> = serde_json::from_str(&cluster.psql(database, sql)).unwrap();
    let read = |(schema, name, columns)| {
        let mut table = Found { schema, name, columns, rows: Vec::new() };
        let copy = format!("{} TO STDOUT", table.statement());
        table.rows = output(cluster, database, "psql", &["-X".to_owned(), "-c".to_owned(), copy]);
        table
    };
    found.into_iter().map(read).collect()
}

fn properties(cluster: &Cluster, database: &str) -> Vec<Property> {
    let sql = format!(
        "SELECT json_build_object('server.version_num', current_setting('server_version_num')::int, \
         'database.name', datname, 'database.owner', datdba::regrole::text, \
         'database.encoding', pg_encoding_to_char(encoding), 'database.collate', datcollate, 'database.ctype', datctype, \
         'database.locale_provider', datlocprovider, 'database.icu_locale', daticulocale, 'database.acl', datacl::text[], \
         'database.connection_limit', datconnlimit, 'database.comment', shobj_description(oid, 'pg_database'), \
         'database.tablespace', (SELECT spcname FROM pg_tablespace t WHERE t.oid = dattablespace), \
         'database.settings', (SELECT json_agg(json_build_object('role', r.rolname, 'settings', s.setconfig)) \
             FROM pg_db_role_setting s LEFT JOIN pg_roles r ON r.oid = setrole WHERE setdatabase = d.oid)) \
         FROM pg_database d WHERE datname = '{database}'"
    );
    let object: serde_json::Map<String, serde_json::Value> =
        serde_json::from_str(&cluster.psql(database, &sql)).unwrap();
    object.into_iter().map(|(name, value)| Property { name, value }).collect()
}

/// A sink that keeps streams whole.
pub(crate) struct Keep;

struct Writer(StreamKind, Vec<u8>);

#[async_trait]
impl Sink for Keep {
    async fn open(&self, kind: StreamKind) -> Result<Box<dyn StreamWriter>, SinkError> {
        Ok(Box::new(Writer(kind, Vec::new())))
    }
}

#[async_trait]
impl StreamWriter for Writer {
    async fn write(&mut self, bytes: Bytes) -> Result<(), SinkError> {
        self.1.extend_from_slice(&bytes);
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<FinishedStream, SinkError> {
        let (kind, bytes, sha256) = (self.0, self.1.len() as u64, Hash256::of(&self.1));
        Ok(FinishedStream { kind, bytes, sha256, token: Box::new(self.1) })
    }
}

impl From<Captured> for Fixture {
    fn from(captured: Captured) -> Self {
        let mut fixture = Self {
            streams: Vec::new(),
            bytes: Vec::new(),
            tables: captured.tables,
            properties: captured.properties,
            truncated: None,
        };
        for one in captured.streams {
            let bytes = *one.stream.token.downcast::<Vec<u8>>().unwrap();
            fixture.push(one.stream.kind, bytes, one.copy, one.members);
        }
        fixture
    }
}
