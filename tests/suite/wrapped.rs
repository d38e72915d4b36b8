//! `clients = { wrap = … }` from outside: client programs in a box that sees no file of ours, nothing of our environment
//! but what it is told to pass, and our standard input through a pipe only, as `docker exec -i` does.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use harness::pg::Cluster;

use super::stack::{DATABASE, Out, PASSWORD, Stack};

/// Exit 97 for an argument that names a file of ours. The environment is thrown away but for `-e NAME`.
const BOX: &str = r#"#!/bin/bash
keep=' '
while [ "$1" = -e ]; do keep="$keep$2 "; shift 2; done
[ "$1" = box ] || { echo "Error: No such container: $1" >&2; exit 1; }
shift
for argument; do
    for text in "$argument" "${argument#*=}" "${argument:2}"; do
        case "$text" in
            /usr/*) ;;
            /*) [ -e "$text" ] && { echo "a file that is not in the box: $text" >&2; exit 97; } ;;
        esac
    done
done
for name in $(compgen -e); do
    case "$keep" in *" $name "*) ;; *) unset "$name" ;; esac
done
export PATH=CLIENTS:/usr/bin:/bin
echo "$*" >> LOG
[ -e "LOG.$1" ] && { echo "the box is closed" >&2; exit 5; }
cd /
exec "$@" < <(exec cat)
"#;

/// A stack whose clients are in the box, with these words after the wrapper's name.
fn boxed(words: &str) -> Stack {
    let stack = Stack::new();
    stack.drop_offsite();
    let clients = stack.pg.clients().display().to_string();
    let script = BOX.replace("CLIENTS", &clients).replace("LOG", &stack.text("log"));
    fs::write(stack.path("wrapper"), script).unwrap();
    fs::set_permissions(stack.path("wrapper"), fs::Permissions::from_mode(0o755)).unwrap();
    let wrap = format!("globals = \"passwords\"\nclients = {{ wrap = [\"{}\"{words}] }}", stack.text("wrapper"));
    stack.configure("globals = \"passwords\"", &wrap);
    stack.init();
    stack
}

fn restore(stack: &Stack, args: &[&str]) -> Out {
    let ops = stack.text("operator/ops.txt");
    stack.backup(&[&["restore", "--latest", "--source", "db", "--identity", &ops], args].concat())
}

/// Rows, and what comes after rows.
fn described(cluster: &Cluster, database: &str) -> String {
    let sql = "SELECT md5(string_agg(e::text, ',' ORDER BY id)) FROM events e UNION ALL
        SELECT md5(string_agg(u::text, ',' ORDER BY id)) FROM users u UNION ALL SELECT count(*)::text FROM big_orders UNION ALL
        SELECT string_agg(conname, ',' ORDER BY conname) FROM pg_constraint WHERE connamespace = 'public'::regnamespace";
    cluster.psql(database, sql)
}

#[test]
fn clients_in_a_box_capture_and_restore_without_a_file_of_ours() {
    let stack = boxed(", \"-e\", \"PGPASSWORD\", \"box\"");
    stack.pg.psql(DATABASE, "SELECT lo_from_bytea(0, decode(repeat('ab', 500000), 'hex'))");
    stack.run().expect(0);
    let ops = stack.text("operator/ops.txt");
    stack.backup(&["verify", "--identity", &ops]).expect(0);
    restore(&stack, &["--into", "back"]).expect(0);
    assert_eq!(described(&stack.pg, "back"), described(&stack.pg, DATABASE));
    let large = "SELECT count(*), sum(length(lo_get(oid))) FROM pg_largeobject_metadata";
    assert_eq!(stack.pg.psql("back", large), "1|500000");
    let log = fs::read_to_string(stack.path("log")).unwrap();
    for start in ["pg_dump --version", "pg_dump --no-password", "pg_dumpall --no-password", "pg_restore --list"] {
        assert!(log.lines().any(|line| line.starts_with(start)), "{start}:\n{log}");
    }
    for section in ["pre-data", "data", "post-data"] {
        assert!(log.contains(&format!("--section={section}")), "{section}:\n{log}");
    }
    assert!(!log.contains(PASSWORD), "{log}");
    // What needs files is refused before anything starts.
    let part = restore(&stack, &["--into", "part", "--table", "users"]);
    assert!(part.code != 0 && part.all().contains("not wrapped ones"), "{}", part.all());
}

#[test]
fn a_box_that_fails_says_why() {
    let stack = boxed(", \"-e\", \"PGPASSWORD\", \"box\"");
    stack.run().expect(0);
    let there = stack.ids("db");
    for (program, words) in [("pg_dump", "pg_dump"), ("pg_dumpall", "pg_dumpall"), ("pg_restore", "pg_restore")] {
        let closed = stack.path(&format!("log.{program}"));
        fs::write(&closed, "").unwrap();
        let out = stack.run();
        let said = out.all();
        assert!(out.code != 0 && said.contains("the box is closed") && said.contains(words), "{program}: {said}");
        fs::remove_file(closed).unwrap();
    }
    assert_eq!(stack.ids("db"), there, "a snapshot without all of it");
    fs::write(stack.path("log.pg_restore"), "").unwrap();
    let out = restore(&stack, &["--into", "never"]);
    assert!(out.code != 0 && out.stderr.contains("the box is closed"), "{}", out.all());
    fs::remove_file(stack.path("log.pg_restore")).unwrap();
    assert_eq!(stack.pg.psql("postgres", "SELECT count(*) FROM pg_database WHERE datname ~ 'never'"), "0");

    // The password that it was not told to pass, a container that is not there, a wrapper that is not there.
    for (from, to, words) in [
        ("\"-e\", \"PGPASSWORD\", ", "", "no password supplied"),
        ("\"box\"", "\"gone\"", "No such container: gone"),
        ("/wrapper\"", "/none\"", "/none"),
    ] {
        stack.configure(from, to);
        let out = stack.run();
        assert!(out.code != 0 && out.all().contains(words), "{words}: {}", out.all());
    }
    assert_eq!(stack.ids("db"), there);
}
