//! A stack with a database that dumps find hard, stock dumps of it, and a judge.

use std::path::PathBuf;
use std::process::Command;

use super::super::stack::{Out, Stack};

/// File, arguments of `pg_dump` (the first may be a program that compresses), the format as `import` calls it.
pub(super) const DUMPS: [(&str, &[&str], &str); 6] = [
    ("app.dump", &["-Fc"], "custom"),
    ("app.dir", &["-Fd", "-j2"], "directory"),
    ("app.tar", &["-Ft"], "tar"),
    ("app.sql", &[], "plain"),
    ("app.sql.gz", &["gzip"], "plain"),
    ("app.sql.zst", &["zstd"], "plain"),
];

/// Instants in another zone than ours, partitions that are loaded through their root, texts that look like a script's
/// end, rows without columns, owners, privileges and settings.
const DATABASE: &str = r#"
    CREATE ROLE bob; CREATE ROLE "Al ice"; CREATE ROLE "car ol";
    CREATE DATABASE app OWNER bob CONNECTION LIMIT 17;
    ALTER DATABASE app SET timezone TO 'America/New_York'; ALTER DATABASE app SET search_path TO 'a b', public;
    ALTER ROLE bob IN DATABASE app SET work_mem = '5MB'; COMMENT ON DATABASE app IS 'it''s';
    REVOKE ALL ON DATABASE app FROM PUBLIC; GRANT CONNECT ON DATABASE app TO "Al ice" WITH GRANT OPTION;
"#;
const SAMPLE: &str = r#"
    CREATE SCHEMA "a b" AUTHORIZATION bob;
    CREATE TYPE mood AS ENUM ('sad', 'ok');
    CREATE TABLE public.moods (m mood, n int) PARTITION BY HASH (m);
    CREATE TABLE public.moods_0 PARTITION OF public.moods FOR VALUES WITH (modulus 2, remainder 0);
    CREATE TABLE public.moods_1 PARTITION OF public.moods FOR VALUES WITH (modulus 2, remainder 1);
    INSERT INTO public.moods SELECT CASE n % 2 WHEN 0 THEN 'sad' ELSE 'ok' END::mood, n FROM generate_series(1, 100) n;
    CREATE TABLE public.days (day date, n int) PARTITION BY RANGE (day);
    CREATE TABLE public.days_a PARTITION OF public.days FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
    CREATE TABLE public.days_b PARTITION OF public.days DEFAULT;
    INSERT INTO public.days SELECT '2024-12-01'::date + n, n FROM generate_series(1, 90) n;
    CREATE TABLE public.parent (x int); CREATE TABLE public.child () INHERITS (public.parent);
    INSERT INTO public.parent VALUES (1); INSERT INTO public.child VALUES (2), (3);
    CREATE TABLE public.times (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, at timestamptz, many timestamptz[], span tstzrange,
        local timestamp, f float8, doubled float8 GENERATED ALWAYS AS (f * 2) STORED, raw bytea, doc jsonb, gone int);
    ALTER TABLE public.times DROP COLUMN gone;
    INSERT INTO public.times (at, many, span, local, f, raw, doc) SELECT t, ARRAY[t, NULL, t + '180 days'], tstzrange(t, t + '1 day'), t, n / 7.0,
        decode(md5(n::text), 'hex'), jsonb_build_object('at', t)
        FROM generate_series(1, 400) n, LATERAL (SELECT '2024-01-01'::timestamptz + n * interval '1 day 1 hour 1 us' AS t) AS l;
    INSERT INTO public.times (at) VALUES ('infinity'), ('0044-03-15 12:00:00 BC'), ('12345-01-01'), (NULL);
    CREATE TABLE "a b"."Odd; --" (id int PRIMARY KEY, "te xt" text);
    INSERT INTO "a b"."Odd; --" VALUES (1, '\.'), (2, E'\\.\n-- PostgreSQL database dump complete'), (3, E'a\tb\\c'), (4, NULL), (5, ''),
        (6, E'2024-01-01 00:00:00+00\n\\connect x');
    CREATE TABLE public.nothing (); INSERT INTO public.nothing DEFAULT VALUES; INSERT INTO public.nothing DEFAULT VALUES;
    CREATE FUNCTION public.text() RETURNS text LANGUAGE sql AS $_$ SELECT E'
COPY public.times (id) FROM stdin;
\\! false
it''s' $_$;
    CREATE FUNCTION public.add(int) RETURNS void LANGUAGE sql BEGIN ATOMIC INSERT INTO public.parent VALUES ($1); END;
    CREATE VIEW public.recent AS SELECT * FROM public.times WHERE at > '2024-06-01';
    CREATE MATERIALIZED VIEW public.totals AS SELECT m, count(*) FROM public.moods GROUP BY m;
    SELECT lo_from_bytea(70001, decode(repeat('ab', 5000), 'hex'));
    CREATE SEQUENCE public.lonely START 5; SELECT nextval('public.lonely'); ALTER SEQUENCE public.lonely OWNER TO "car ol";
    ALTER TABLE public.times ENABLE ROW LEVEL SECURITY; CREATE POLICY own ON public.times TO bob, "Al ice" USING (id > 0);
    ALTER TABLE public.parent OWNER TO bob; GRANT SELECT ON public.times TO "Al ice"; COMMENT ON TABLE public.times IS 'times; it''s';
    ALTER DEFAULT PRIVILEGES FOR ROLE bob GRANT SELECT ON TABLES TO "Al ice";
"#;

pub(super) struct Scene {
    pub(super) stack: Stack,
}

impl Scene {
    pub(super) fn new() -> Self {
        let stack = Stack::new();
        stack.drop_offsite();
        stack.init();
        stack.pg.psql("postgres", "DROP DATABASE app");
        stack.pg.psql("postgres", DATABASE);
        stack.pg.psql("app", SAMPLE);
        Self { stack }
    }

    /// Rows of the sample, as SQL counts them.
    pub(super) fn rows(&self) -> u64 {
        let sql = "SELECT sum((xpath('/row/c/text()', query_to_xml(format('SELECT count(*) AS c FROM ONLY %s', c.oid::regclass), false, \
                   true, '')))[1]::text::int) FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relkind = 'r' \
                   AND nspname !~ '^pg_|^information'";
        self.stack.pg.psql("app", sql).trim().parse().unwrap()
    }

    /// Makes a dump by stock programs.
    pub(super) fn dump(&self, name: &str, arguments: &[&str]) -> PathBuf {
        let file = self.stack.path(name);
        let packer = arguments.first().copied().filter(|first| !first.starts_with('-'));
        let plain = if packer.is_some() { self.stack.path(&format!("{name}.unpacked")) } else { file.clone() };
        let mut command = self.stack.pg.client("pg_dump", "app");
        command.args(arguments.iter().filter(|argument| argument.starts_with('-'))).arg("-f").arg(&plain);
        let done = command.output().unwrap();
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
        if let Some(packer) = packer {
            let packed = Command::new(packer).arg("-c").arg(&plain).output().unwrap();
            assert!(packed.status.success());
            std::fs::write(&file, packed.stdout).unwrap();
        }
        file
    }

    pub(super) fn import(&self, file: &std::path::Path, more: &[&str]) -> Out {
        self.stack.backup(&[&["import", file.to_str().unwrap(), "--source", "db"], more].concat())
    }

    pub(super) fn restore(&self, more: &[&str]) -> Out {
        let identity = self.stack.text("operator/ops.txt");
        self.stack.backup(&[&["restore", "--identity", &identity], more].concat())
    }

    /// Everything that stock `pg_dump` says of a database: definitions, rows, sequences, large objects. Rows that are
    /// spread by oids are in other partitions there, so these are read through their root.
    pub(super) fn picture(&self, database: &str) -> String {
        let mut command = self.stack.pg.client("pg_dump", database);
        let out = command.env("PGTZ", "UTC").arg("--exclude-table-data=public.moods*").output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let text = String::from_utf8(out.stdout).unwrap();
        let lines = text.lines().filter(|line| !line.contains("restrict "));
        let moods = self.stack.pg.psql(database, "SELECT * FROM public.moods ORDER BY n");
        lines.fold(moods, |all, line| all + line + "\n")
    }

    /// What `pg_dump --create` says of the database itself.
    pub(super) fn properties(&self, database: &str) -> Vec<String> {
        let out = self.stack.pg.client("pg_dump", database).args(["--create", "--schema-only"]).output().unwrap();
        let text = String::from_utf8(out.stdout).unwrap();
        let mut lines: Vec<String> = text
            .lines()
            .filter(|line| line.contains(&format!("DATABASE {database}")))
            .map(|line| line.replace(&format!("DATABASE {database}"), "DATABASE x"))
            .collect();
        lines.sort();
        lines
    }
}

/// The first lines that differ.
pub(super) fn differences(left: &str, right: &str) -> String {
    let pairs = left.lines().zip(right.lines()).filter(|(left, right)| left != right);
    let lines: Vec<String> = pairs.take(12).map(|(left, right)| format!("- {left}\n+ {right}")).collect();
    format!("{} and {} lines\n{}", left.lines().count(), right.lines().count(), lines.join("\n"))
}
