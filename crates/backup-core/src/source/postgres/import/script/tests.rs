//! A dump with everything that could be mistaken for rows or for commands, read whole, in pieces and cut off.

use super::*;

const DUMP: &str = r#"--
-- PostgreSQL database dump
--

\restrict abc
-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 16.1

SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
CREATE FUNCTION public.f() RETURNS text LANGUAGE sql AS $_$
COPY public.no (a) FROM stdin;
\! echo in a body
it's $x$ $_$;
CREATE FUNCTION public.g() RETURNS void LANGUAGE sql
    BEGIN ATOMIC
 INSERT INTO public.t VALUES (1);
END;
COMMENT ON TABLE public.t IS 'COPY public.no FROM stdin;
\connect x';
/* a /* nested */ \! comment */
ALTER TABLE public.t OWNER TO bob;
GRANT SELECT ON TABLE public.t TO PUBLIC;
GRANT ALL ON TABLE public.t TO "Al ice" WITH GRANT OPTION;
ALTER DEFAULT PRIVILEGES FOR ROLE owner IN SCHEMA public GRANT SELECT ON TABLES TO reader;
CREATE POLICY p ON public.t TO one, two USING ((x TO y));
COPY public.t (id, "a b") FROM stdin;
1	\N
2	it's; -- $$
\.


COPY public."No Col"  FROM stdin;


\.

COPY public.t (id, "a b") FROM stdin;
3	x
\.
--
-- PostgreSQL database dump complete
--

\unrestrict abc

"#;

fn read(text: &str, piece: usize) -> Found {
    let mut script = Script::default();
    for bytes in text.as_bytes().chunks(piece) {
        script.feed(bytes, |_, _| {});
    }
    script.finish()
}

fn sum(rows: &[&str]) -> RowSum {
    let mut sum = RowSum::default();
    for row in rows {
        sum.add(row.as_bytes());
    }
    sum
}

#[test]
fn rows_are_found_where_psql_would_find_them_however_the_bytes_are_cut() {
    for piece in [1, 2, 3, 7, 64, DUMP.len()] {
        let found = read(DUMP, piece);
        let [t, none] = &found.tables[..] else { panic!("{:?}", found.tables) };
        assert_eq!(
            (t.schema.as_str(), t.name.as_str(), &t.columns[..]),
            ("public", "t", &["id".into(), "a b".into()][..])
        );
        assert_eq!(t.sum, sum(&["1\t\\N", "2\tit's; -- $$", "3\tx"]));
        assert_eq!((none.name.as_str(), none.columns.len(), none.sum), ("No Col", 0, sum(&["", ""])));
        assert!(found.begun && found.complete && !found.cluster);
        assert_eq!(found.command, None);
        assert_eq!(found.uncounted, BTreeSet::new());
        assert_eq!((found.server_version.as_deref(), found.client_version.as_deref()), (Some("15.18"), Some("16.1")));
        let roles: Vec<&str> = found.roles.iter().map(String::as_str).collect();
        assert_eq!(roles, ["Al ice", "bob", "one", "owner", "reader", "two"]);
        assert_eq!(found.bytes, DUMP.len() as u64);
    }
}

#[test]
fn a_script_that_was_cut_anywhere_is_not_complete() {
    let end = DUMP.find("-- PostgreSQL database dump complete").unwrap();
    for cut in 0..end + 10 {
        assert!(DUMP.is_char_boundary(cut) && !read(&DUMP[..cut], 100).complete, "cut at {cut}");
    }
    assert!(read(DUMP.trim_end(), 100).complete);
    // Two behind each other, the second one cut.
    assert!(!read(&format!("{DUMP}{}", &DUMP[..end]), 100).complete);
}

#[test]
fn commands_to_psql_and_rows_that_cannot_be_counted_are_told() {
    for (text, command) in [
        ("\\connect other\n", "\\connect"),
        ("\\restrict x\nSELECT 1 \\! rm\n", "\\!"),
        ("SELECT 'a\\' \\g\n", "\\g"),
        ("SELECT 1 \\restrict x\n", "\\restrict"),
        ("SELECT 1; \\restrict x\n", "\\restrict"),
        ("-- a name\r\\! rm\n", "\\!"),
        ("SELECT 1; -- a name\r\\! rm\n", "\\!"),
        ("SET SESSION standard_conforming_strings = 0;\n", "standard_conforming_strings"),
        ("SELECT set_config('standard_conforming_strings', 'off', false);\n", "standard_conforming_strings"),
    ] {
        assert_eq!(read(text, 5).command.as_deref(), Some(command), "{text}");
    }
    assert_eq!(
        read("SELECT E'a\\' \\! b'; SET standard_conforming_strings = off;\nSELECT 'a\\'\\! b';\n", 5).command,
        None
    );
    let inserts =
        read("INSERT INTO public.t VALUES (1, 'COPY public.x FROM stdin;\n');\nINSERT INTO public.t VALUES (2);\n", 9);
    assert_eq!(inserts.uncounted.into_iter().collect::<Vec<_>>(), ["`public.t` has its rows in INSERT statements"]);
    let odd = read("COPY public.t FROM stdin WITH CSV;\n1\n\\.\n", 9);
    assert_eq!((odd.tables.len(), odd.uncounted.len()), (0, 1));
    let old = read("SET search_path = shop, pg_catalog;\nCOPY t (a) FROM stdin;\n1\n\\.\n", 9);
    assert_eq!((old.tables[0].schema.as_str(), old.tables[0].sum.rows), ("shop", 1));
}
