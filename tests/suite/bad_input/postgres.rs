//! Servers and client programs that fail.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::time::{Duration, Instant};

use harness::pg::Stop;

use super::{Mend, PASSWORD, RUN, Row, Stack, assert_said, check, configured, databases, replaced};

#[test]
fn a_database_that_cannot_be_captured_says_why() {
    let stack = Stack::ready();
    stack.pg.psql("app", &format!("CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'; GRANT SELECT ON users, orders, big_orders, users_id_seq TO reader;"));
    check(&stack, ROWS);
}

#[test]
fn a_server_that_restarts_in_the_middle_ends_the_capture() {
    let stack = Stack::ready();
    stack.run().expect(0);
    let (ids, all) = (stack.ids("db"), databases(&stack));
    let flag = stack.path("dumping");
    // The dump has begun, our transaction with its snapshot is open, and the archive is not there yet.
    let mend = client(&stack, &format!("touch {}; sleep 3; exec $real \"$@\"", flag.display()));
    let out = std::thread::scope(|scope| {
        let run = scope.spawn(|| stack.run());
        let deadline = Instant::now() + Duration::from_mins(1);
        while !flag.exists() {
            assert!(Instant::now() < deadline, "pg_dump was not started");
            std::thread::sleep(Duration::from_millis(10));
        }
        stack.pg.restart(Stop::Immediate);
        run.join().unwrap()
    });
    assert_said(&stack, "restarted", &out, 1, &["source `db`"], "run again");
    mend(&stack);
    assert_eq!((stack.ids("db"), databases(&stack)), (ids, all));
    stack.run().expect(0);
    assert_eq!(stack.ids("db").len(), 2);
}

/// Makes `pg_dump` a script, in which `$real` is the real one, until it is mended.
fn client(stack: &Stack, script: &str) -> Mend {
    let dir = stack.path("clients");
    // Left over from the row before.
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir(&dir).unwrap();
    for program in ["pg_restore", "pg_dumpall", "psql"] {
        symlink(stack.pg.clients().join(program), dir.join(program)).unwrap();
    }
    let real = stack.pg.clients().join("pg_dump");
    let version = "if [ \"$1\" = --version ]; then exec $real --version; fi";
    let text = format!("#!/bin/bash\nreal={}\n{version}\n{script}\n", real.display());
    std::fs::write(dir.join("pg_dump"), text).unwrap();
    std::fs::set_permissions(dir.join("pg_dump"), std::fs::Permissions::from_mode(0o755)).unwrap();
    clients(stack)
}

fn clients(stack: &Stack) -> Mend {
    let to = format!("globals = \"passwords\"\nclients = {{ dir = \"{}\" }}", stack.text("clients"));
    configured(stack, "globals = \"passwords\"", &to)
}

const ROWS: &[Row] = &[
    Row {
        name: "server down",
        breaks: |stack| {
            stack.pg.stop(Stop::Fast);
            Box::new(|stack| stack.pg.start_again())
        },
        call: RUN,
        exit: 1,
        says: &["source `db`", "does not answer"],
        hint: "start the server",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "server down, for a dry run",
        breaks: |stack| {
            stack.pg.stop(Stop::Fast);
            Box::new(|stack| stack.pg.start_again())
        },
        call: &["run", "nightly", "--dry-run"],
        exit: 1,
        says: &["source `db`", "does not answer"],
        hint: "start the server",
        stores: &[],
    },
    Row {
        name: "wrong password",
        breaks: |stack| replaced(stack, "etc/pg.pass", "not-the-password\n"),
        call: RUN,
        exit: 1,
        says: &["source `db`", "refuses user `backup`"],
        hint: "check `password`",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "missing database",
        breaks: |stack| configured(stack, "/app\"", "/nope\""),
        call: RUN,
        exit: 1,
        says: &["source `db`", "no database `nope`"],
        hint: "check the database in `url`",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "no SELECT on one table",
        breaks: |stack| {
            let mend = configured(stack, "postgres://backup@", "postgres://reader@");
            stack.configure("globals = \"passwords\"", "globals = \"none\"");
            mend
        },
        call: RUN,
        exit: 1,
        says: &["`reader` may not read 1 object", "`public.events`"],
        hint: "GRANT pg_read_all_data TO reader",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "pg_dump older than the server",
        breaks: |stack| {
            let mend = client(stack, "");
            let script = "#!/bin/sh\necho 'pg_dump (PostgreSQL) 9.6.24'\n";
            std::fs::write(stack.path("clients/pg_dump"), script).unwrap();
            mend
        },
        call: RUN,
        exit: 1,
        says: &["source `db`", "`pg_dump` is 9.6.24, older than the server"],
        hint: "install the clients of PostgreSQL",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "no pg_dump",
        breaks: |stack| {
            let mend = client(stack, "");
            std::fs::remove_file(stack.path("clients/pg_dump")).unwrap();
            mend
        },
        call: RUN,
        exit: 1,
        says: &["source `db`", "cannot run", "clients/pg_dump`"],
        hint: "install the server's client package",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "pg_dump killed in the middle",
        breaks: |stack| client(stack, "$real \"$@\" | head -c 900; kill -9 $$"),
        call: RUN,
        exit: 1,
        says: &["source `db`", "`pg_dump` failed", "SIGKILL"],
        hint: "nothing was committed, run again",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "pg_dump that fails at its end",
        breaks: |stack| client(stack, "$real \"$@\"; echo 'disk on fire' >&2; exit 1"),
        call: RUN,
        exit: 1,
        says: &["source `db`", "`pg_dump` failed", "disk on fire"],
        hint: "nothing was committed, run again",
        stores: &["local/docs", "offsite/docs"],
    },
    Row {
        name: "an exclude that matches nothing",
        breaks: |stack| {
            let spoil = "for a in \"$@\"; do case $a in --exclude-table-data=*) a='--exclude-table-data=\"no\".\"such\"';; esac; \
                b+=(\"$a\"); done; exec $real \"${b[@]}\"";
            client(stack, spoil)
        },
        call: RUN,
        exit: 4,
        says: &["source `db`", "rows would be lost or doubled", "are streamed and in the archive as well"],
        hint: "server and client programs disagree",
        stores: &["local/docs", "offsite/docs"],
    },
];
