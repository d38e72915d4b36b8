# shellcheck shell=bash
# The contestants of scripts/bench.sh and its arithmetic. Needs the other pieces; W is the scratch directory:
#
#   pg        the cluster                    vault, state   ours, made anew for each first backup
#   rounds    one line per measurement:      restic         restic's repository, the same
#             WORK CONTESTANT SECONDS USER SYSTEM PEAK_KIB STORED_BYTES

bench_install() {
    ensure_packages
    local missing=() tool
    for tool in restic pgcopydb; do command -v "$tool" >/dev/null || missing+=("$tool"); done
    [ -x /usr/bin/time ] || missing+=(time)
    [ ${#missing[@]} -eq 0 ] || apt_install "${missing[@]}"
}

bench_build() {
    if [ -n "${BACKUP_BENCH_BIN-}" ]; then
        BIN=$BACKUP_BENCH_BIN
    else
        ensure_rust
        default_target_dir
        (cd "$ROOT" && cargo build --release --locked -p backup-cli --bin backup -p harness --bins)
        mkdir "$W/bin"
        cp "$CARGO_TARGET_DIR"/release/{backup,s3-server,make-vault} "$W/bin/"
        BIN="$W/bin"
    fi
}

bench_server() {
    (umask 077 && head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$W/pg.pass")
    pg_start "$W/pg" "$W/pg.pass"
    (umask 077 && pgpass_line 127.0.0.1 "$PG_PORT" postgres "$W/pg.pass" >"$PGPASSFILE")
    sql postgres -c "CREATE DATABASE bench"
}

bench_load() {
    sql bench -v scale="$SCALE" -f "$ROOT/fixtures/bench/load.sql"
    SIZE=$(sql bench -A -t -c "SELECT pg_size_pretty(pg_database_size('bench'))")
    say "   $SIZE"
}

bench_prepare() {
    local recipient
    (umask 077 && age-keygen -o "$W/identity.txt" 2>/dev/null && printf 'bench' >"$W/restic.pass")
    recipient=$(age-keygen -y "$W/identity.txt")
    RECIPIENT=$recipient
    (cd "$W" && "$BIN/backup" key new --host "$W/host_key" >/dev/null)
    [ -s "$W/allowed_signers" ] ||
        printf 'backup namespaces="backup.*" %s\n' "$(cut -d' ' -f1,2 "$W/host_key.pub")" >"$W/allowed_signers"
    cat >"$W/backup.toml.new" <<TOML
schema = 1
stack = "bench"
timezone = "UTC"
state = "$W/state"

[keys]
recipients = ["$recipient"]
signers = "allowed_signers"
host_key = "host_key"

[vault.local]
path = "$W/vault"
keep = { within = "7d", min = 3 }

[source.db]
type = "postgres"
url = "postgres://postgres@127.0.0.1:$PG_PORT/bench"
password = { file = "pg.pass" }
TOML
    # Rows about vaults alone have no server, and so no password.
    [ ! -e "$W/pg.pass" ] || chmod 600 "$W/pg.pass"
    export RESTIC_PASSWORD_FILE="$W/restic.pass" RESTIC_CACHE_DIR="$W/restic-cache" RESTIC_REPOSITORY="$W/restic"
}

ours() { "$BIN/backup" --config "$W/backup.toml" "$@"; }
export_pg=(env PGHOST=127.0.0.1 PGUSER=postgres PGDATABASE=bench)
bytes_of() { du -sb "$1" | cut -f1; }

# measure WORK CONTESTANT PLACE COMMAND…: runs it, and writes a line; PLACE is what it stores to, or `-`.
measure() {
    local work=$1 who=$2 place=$3 before=0 after=0
    shift 3
    sync
    [ "$place" = - ] || before=$(bytes_of "$place")
    /usr/bin/time -o "$W/time" -f '%e %U %S %M' "$@" >"$W/out" 2>&1 || { tail -n 20 "$W/out" >&2; die "$who failed"; }
    [ "$place" = - ] || after=$(bytes_of "$place")
    printf '%s %s %s %s\n' "$work" "$who" "$(tail -n 1 "$W/time")" "$((after - before))" >>"$W/rounds"
    say "   $(tail -n 1 "$W/rounds")"
}

# A pipeline as one command, for `time`.
piped() { printf 'set -o pipefail; %s' "$1"; }

# `init` writes the vault's id into the configuration.
fresh_ours() {
    rm -rf "$W/vault" "$W/state"
    cp "$W/backup.toml.new" "$W/backup.toml"
    mkdir -m 700 "$W/vault" "$W/state"
    ours init >"$W/out" 2>&1 || { cat "$W/out" >&2; return 1; }
}
first_ours() {
    fresh_ours
    ours run >"$W/out" 2>&1 || { cat "$W/out" >&2; die "our first backup failed"; }
}
fresh_restic() {
    rm -rf "$W/restic" "$W/restic-cache"
    restic init -q
}

dump_null() { measure "$1" pg_dump_Fc_Z0 - "${export_pg[@]}" PGPORT="$PG_PORT" bash -c "$(piped 'pg_dump -Fc -Z0 >/dev/null')"; }
dump_restic() {
    measure "$1" restic "$W/restic" "${export_pg[@]}" PGPORT="$PG_PORT" bash -c \
        "$(piped 'pg_dump -Fc -Z0 | restic backup -q --stdin --stdin-filename bench.dump')"
}

bench_first() {
    local round
    for ((round = 1; round <= ROUNDS; round++)); do
        fresh_ours
        measure first ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
        dump_null first
        measure first pg_dump_zstd_age - "${export_pg[@]}" PGPORT="$PG_PORT" bash -c \
            "$(piped "pg_dump -Fc -Z0 | zstd -1 -T0 -q | age -r $RECIPIENT >'$W/dump.age'")"
        rm -f "$W/dump.age"
        fresh_restic
        dump_restic first
        rm -rf "$W/dir"
        measure first pg_dump_Fd_j2 - "${export_pg[@]}" PGPORT="$PG_PORT" pg_dump -Fd -j2 -Z0 -f "$W/dir"
    done
    rm -rf "$W/dir"
}

bench_next() {
    local round
    first_ours
    fresh_restic
    "${export_pg[@]}" PGPORT="$PG_PORT" bash -c "$(piped 'pg_dump -Fc -Z0 | restic backup -q --stdin --stdin-filename bench.dump')"
    for ((round = 1; round <= ROUNDS; round++)); do
        sql bench -f "$ROOT/fixtures/bench/append.sql"
        measure next ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
        dump_null next
        dump_restic next
    done
}

bench_updates() {
    local part
    first_ours
    fresh_restic
    "${export_pg[@]}" PGPORT="$PG_PORT" bash -c "$(piped 'pg_dump -Fc -Z0 | restic backup -q --stdin --stdin-filename bench.dump')"
    for part in 0.0001 0.001 0.01; do
        sql bench -v part="$part" -v salt="${part//[^0-9]/}" -f "$ROOT/fixtures/bench/update.sql"
        measure "update-$part" ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
        dump_restic "update-$part"
    done
    sql bench -c "VACUUM"
    measure vacuum ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
    dump_restic vacuum
    sql bench -c "VACUUM FULL"
    measure vacuum-full ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
    dump_restic vacuum-full
    refill random-2-percent 0 0.02 0.01
    refill oldest-1-percent 0.01 0 0.01
}

# refill WORK OLDEST PART NEW: rows go from the beginning or at random, then new ones take their room.
refill() {
    sql bench -v oldest="$2" -v part="$3" -v salt=77 -f "$ROOT/fixtures/bench/free.sql"
    measure "delete-$1" ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
    dump_restic "delete-$1"
    sql bench -v part="$4" -f "$ROOT/fixtures/bench/refill.sql"
    measure "refill-$1" ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
    dump_restic "refill-$1"
}

# Thirty nights of a mixed load, all of them kept. A generation is seven nights: time does not pass here, so losing the
# state, which opens a new generation as well, stands for its turn.
bench_nights() {
    local night
    first_ours
    fresh_restic
    "${export_pg[@]}" PGPORT="$PG_PORT" bash -c "$(piped 'pg_dump -Fc -Z0 | restic backup -q --stdin --stdin-filename bench.dump')"
    for ((night = 1; night < 30; night++)); do
        sql bench -v night="$night" -f "$ROOT/fixtures/bench/night.sql"
        if [ $((night % 7)) -eq 0 ]; then
            rm -rf "$W/state"
            mkdir -m 700 "$W/state"
            measure night ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
        else
            measure night ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
        fi
        dump_restic night
    done
    printf 'all-30-nights ours 0 0 0 0 %s\nall-30-nights restic 0 0 0 0 %s\n' "$(bytes_of "$W/vault")" "$(bytes_of "$W/restic")" >>"$W/rounds"
}

bench_restore() {
    local round restore=("$BIN/backup" --config "$W/backup.toml" restore --latest --into back --identity "$W/identity.txt")
    first_ours
    rm -rf "$W/dir"
    "${export_pg[@]}" PGPORT="$PG_PORT" pg_dump -Fd -j2 -Z0 -f "$W/dir"
    for ((round = 1; round <= ROUNDS; round++)); do
        sql postgres -c "DROP DATABASE IF EXISTS back"
        measure restore ours - "${restore[@]}" --verify counts
        sql postgres -c "DROP DATABASE IF EXISTS back"
        measure restore ours_read_back - "${restore[@]}" --verify content
        sql postgres -c "DROP DATABASE IF EXISTS back" -c "CREATE DATABASE back"
        measure restore pg_restore_j - "${export_pg[@]}" PGPORT="$PG_PORT" PGDATABASE=back pg_restore -j"$(nproc)" -d back "$W/dir"
        sql postgres -c "DROP DATABASE IF EXISTS back" -c "CREATE DATABASE back"
        rm -rf "$W/copydb"
        measure restore pgcopydb - "${export_pg[@]}" PGPORT="$PG_PORT" pgcopydb clone --table-jobs "$(nproc)" --index-jobs "$(nproc)" --dir "$W/copydb" \
            --source "postgres://postgres@127.0.0.1:$PG_PORT/bench" --target "postgres://postgres@127.0.0.1:$PG_PORT/back"
    done
    sql postgres -c "DROP DATABASE IF EXISTS back"
    rm -rf "$W/dir"
}

# Peak memory over sizes of the database: it must not grow. Makes the database anew, so it comes last.
bench_memory() {
    local factor size restore=("$BIN/backup" --config "$W/backup.toml" restore --latest --into back --identity "$W/identity.txt")
    for factor in 0.2 1.0 4.2; do
        sql postgres -c "DROP DATABASE bench" -c "CREATE DATABASE bench"
        sql bench -v scale="$factor" -f "$ROOT/fixtures/bench/load.sql"
        size=$(sql bench -A -t -c "SELECT round(pg_database_size('bench') / 1e9, 1)")
        fresh_ours
        measure "first-of-${size}GB" ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
        measure "unchanged-of-${size}GB" ours "$W/vault" "$BIN/backup" --config "$W/backup.toml" run
        measure "restore-of-${size}GB" ours - "${restore[@]}" --verify counts
        sql postgres -c "DROP DATABASE back"
    done
}

# ratios: medians per work and contestant, ours divided by theirs.
table() {
    sort -k1,2 -s "$W/rounds" | awk '
        function median(list, n,    i, j, t) {
            for (i = 2; i <= n; i++) { t = list[i]; for (j = i - 1; j > 0 && list[j] > t; j--) list[j + 1] = list[j]; list[j + 1] = t }
            return n % 2 ? list[(n + 1) / 2] : (list[n / 2] + list[n / 2 + 1]) / 2
        }
        {
            key = $1 " " $2
            if (!(key in n)) order[++keys] = key
            k = ++n[key]; s[key, k] = $3; u[key, k] = $4 + $5; b[key, k] = $7; if ($6 > peak[key]) peak[key] = $6
        }
        END {
            print "| work | contestant | runs | median s | CPU s | peak MiB | stored MB | ours / it |"
            print "|---|---|---|---|---|---|---|---|"
            for (i = 1; i <= keys; i++) {
                key = order[i]; split(key, w, " ")
                for (j = 1; j <= n[key]; j++) { x[j] = s[key, j]; y[j] = u[key, j]; z[j] = b[key, j] }
                m[key] = median(x, n[key]); c[key] = median(y, n[key]); st[key] = median(z, n[key])
            }
            for (i = 1; i <= keys; i++) {
                key = order[i]; split(key, w, " ")
                own = w[1] " ours"
                # Of what was not timed, the ratio of the bytes; of ourselves, none.
                ratio = ""
                if (w[2] !~ /^ours/) ratio = m[key] > 0 ? sprintf("%.2f", m[own] / m[key]) : sprintf("%.2f of the bytes", st[own] / st[key])
                stored = st[key] ? sprintf("%.1f", st[key] / 1e6) : ""
                printf "| %s | %s | %d | %.2f | %.2f | %.0f | %s | %s |\n", w[1], w[2], n[key], m[key], c[key], peak[key] / 1024, stored, ratio
            }
        }'
}

report() {
    local dirty=""
    [ -z "$(git -C "$ROOT" status --porcelain 2>/dev/null)" ] || dirty=", with changes that are not committed"
    cat <<MD
# Benchmarks

Written by \`scripts/bench.sh --scale $SCALE --rounds $ROUNDS\`. Wall time, medians over the runs, contestants in turn within each round. "ours / it"
is our median divided by theirs: below 1 we are faster. CPU is the process's and its children's, not the server's; peak memory is that of
the largest single process.

$([ -z "${SIZE-}" ] || printf -- '- database: %s, PostgreSQL %s, `fsync=off`, `full_page_writes=off`' "$SIZE" "$(sql postgres -A -t -c 'SHOW server_version')")
- machine: $(nproc) cores, $(awk '/MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)
- $("$BIN/backup" --version), commit $(git -C "$ROOT" rev-parse --short HEAD 2>/dev/null || echo '?')$dirty
- $(restic version | cut -d' ' -f1,2), pgcopydb $(pgcopydb --version 2>/dev/null | head -n 1 | tr -dc '0-9.'), $(zstd --version | grep -o 'v[0-9.]*' | head -n 1) zstd, age $(age --version)

$(table)

## Raw rounds

\`work contestant seconds user system peak-KiB stored-bytes\`

\`\`\`
$(cat "$W/rounds")
\`\`\`
MD
}
