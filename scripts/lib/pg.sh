# shellcheck shell=bash
# Throw-away PostgreSQL clusters on loopback. Needs say.sh, deps.sh, and a scratch directory that others may enter.
#
# PostgreSQL refuses to run as root: root's clusters run as the user `postgres` that Debian's packages made. Connections
# need a password (SCRAM), as in production. fsync is off: these clusters live for minutes.

# as_server COMMAND…: as the user that runs the servers, with nothing of our environment.
as_server() {
    local drop=()
    if [ "$(id -u)" -eq 0 ]; then drop=(setpriv --reuid=postgres --regid=postgres --init-groups); fi
    "${drop[@]}" env -i PATH=/usr/bin:/bin LC_ALL=C.UTF-8 TZ=UTC "$@"
}

# A port of 127.0.0.1 that nobody listens on at this instant; below the range from which the kernel gives ports away.
free_port() {
    local port try
    for try in {1..50}; do
        port=$((15000 + (RANDOM * 32768 + RANDOM + try) % 17000))
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then
            printf '%s\n' "$port"
            return 0
        fi
    done
    die "no free port found on 127.0.0.1 between 15000 and 32000"
}

# pg_start DIRECTORY PASSWORD_FILE: makes and starts a cluster in a directory that must not exist yet; the superuser is
# `postgres`. Sets PG_PORT. Somebody may take the port between the look and the start: then another one is tried.
pg_start() {
    local dir=$1 password_file=$2 bin try
    bin=$(pg_bin_dir) || die "no PostgreSQL server under /usr/lib/postgresql" "apt-get install postgresql-15"
    mkdir -m 755 "$dir"
    install -m 600 "$password_file" "$dir/superuser.pass"
    if [ "$(id -u)" -eq 0 ]; then chown -R postgres: "$dir"; fi
    (cd / && as_server "$bin/initdb" -D "$dir/data" -U postgres --pwfile="$dir/superuser.pass" --auth=scram-sha-256 \
        --encoding=UTF8 --locale=C.UTF-8 --no-sync) >"$dir.initdb.log" 2>&1 || { cat "$dir.initdb.log" >&2; die "initdb failed"; }
    rm -f "$dir/superuser.pass"
    for try in 1 2 3 4 5; do
        PG_PORT=$(free_port)
        if (cd / && as_server "$bin/pg_ctl" -D "$dir/data" -w -t 60 -s -l "$dir/server.log" -o "-p $PG_PORT \
            -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c fsync=off -c full_page_writes=off" start) \
            >/dev/null 2>&1; then
            return 0
        fi
        grep -q 'Address already in use' "$dir/server.log" || break
        say "   port $PG_PORT was taken meanwhile, try $try"
    done
    tail -n 20 "$dir/server.log" >&2
    die "PostgreSQL did not start in $dir"
}

# pg_stop DIRECTORY: at once; quiet when it does not run.
pg_stop() {
    local bin
    [ -e "$1/data/postmaster.pid" ] || return 0
    bin=$(pg_bin_dir) && (cd / && as_server "$bin/pg_ctl" -D "$1/data" -m immediate -w -t 30 -s stop) >/dev/null 2>&1
}

# pgpass_line HOST PORT USER PASSWORD_FILE: the password never stands in argv or in a variable that is exported.
pgpass_line() { printf '%s:%s:*:%s:%s\n' "$1" "$2" "$3" "$(cat "$4")"; }

# sql DATABASE [OPTION]…: psql as superuser on the cluster at PG_PORT; stops at the first error. PGPASSFILE must be set.
sql() {
    local database=$1
    shift
    PGOPTIONS='' PGCONNECT_TIMEOUT=10 "$(pg_bin_dir)/psql" -X -q -v ON_ERROR_STOP=1 -h 127.0.0.1 -p "$PG_PORT" -U postgres -d "$database" "$@"
}
