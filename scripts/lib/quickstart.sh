# shellcheck shell=bash
# The steps of the quickstart, in the order of their use. Needs the other pieces; W is the scratch directory:
#
#   host/etc      the host's configuration: backup.toml, host key, allowed_signers, passwords    lost in the disaster
#   host/srv      the files of the stack                                                         lost
#   host/vault    the local vault;  host/state: the tool's state;  pg1: the first cluster        lost
#   operator      the operators' age identities and the recovery sheet                           kept elsewhere
#   s3, s3.env    the S3 server's directory and its keys                                         elsewhere
#   bin           the programs
#   pg2, back     the second cluster and the directory into which the files come back

install_missing() {
    ensure_packages
    say "   PostgreSQL: $(pg_bin_dir), age: $(age --version), zstd: $(zstd --version | grep -o 'v[0-9.]*' | head -n 1)"
}

build() {
    if [ -n "${BACKUP_QUICKSTART_BIN-}" ]; then
        BIN=$BACKUP_QUICKSTART_BIN
    else
        ensure_rust
        default_target_dir
        (cd "$ROOT" && cargo build --release --locked -p backup-cli -p harness --bin backup --bin s3-server)
        # Copies: the target directory is shared, another clone may build over it while we run.
        mkdir "$W/bin"
        cp "$CARGO_TARGET_DIR/release/backup" "$CARGO_TARGET_DIR/release/s3-server" "$W/bin/"
        BIN="$W/bin"
    fi
    if [ ! -x "$BIN/backup" ] || [ ! -x "$BIN/s3-server" ]; then die "no \`backup\` and \`s3-server\` in $BIN"; fi
    say "   $BIN/backup"
}

make_host() {
    mkdir "$W/host" "$W/host/srv"
    mkdir -m 700 "$W/host/etc" "$W/host/state" "$W/host/vault" "$W/operator"
    (umask 077 && random_hex 16 >"$W/host/etc/superuser.pass" && random_hex 16 >"$W/host/etc/pg.pass")
    write_files "$W/host/srv/usdcop"
    say "   $(find "$W/host/srv/usdcop" -type f | wc -l) files in $W/host/srv/usdcop"
}

# The role that makes backups. Superuser, so that the roles' password hashes are saved too (`globals = "passwords"`).
# The password travels on standard input.
start_first_cluster() {
    (cd / && as_server test -x "$W") || die "the server's user cannot enter $W" "TMPDIR=/tmp scripts/quickstart.sh"
    pg_start "$W/pg1" "$W/host/etc/superuser.pass"
    (umask 077 && pgpass_line 127.0.0.1 "$PG_PORT" postgres "$W/host/etc/superuser.pass" >"$PGPASSFILE")
    printf "CREATE ROLE backup LOGIN SUPERUSER PASSWORD '%s';\n" "$(cat "$W/host/etc/pg.pass")" | sql postgres -f -
    say "   $(sql postgres -A -t -c 'SHOW server_version') on 127.0.0.1:$PG_PORT"
}

describe_stack() {
    describe_database >"$W/before.db.txt" || return
    hash_files "$W/host/srv/usdcop" >"$W/before.files.txt" || return
    say "   $(wc -l <"$W/before.db.txt") lines about the database, $(wc -l <"$W/before.files.txt") files"
}

# Two recipients: one identity lost must not be the end. The host gets the public halves only.
make_keys() {
    local name
    for name in ops escrow; do
        (umask 077 && age-keygen -o "$W/operator/$name.txt" 2>/dev/null)
    done
    OPS=$(age-keygen -y "$W/operator/ops.txt")
    ESCROW=$(age-keygen -y "$W/operator/escrow.txt")
    backup key new --host "$W/host/etc/host_key"
    [ -s "$W/host/etc/allowed_signers" ] ||
        printf 'backup namespaces="backup.*" %s\n' "$(cut -d' ' -f1,2 "$W/host/etc/host_key.pub")" >"$W/host/etc/allowed_signers"
    SIGNER=$(ssh-keygen -l -f "$W/host/etc/host_key.pub" | cut -d' ' -f2)
    say "   host key $SIGNER; operators $OPS and $ESCROW"
}

write_config() {
    cp "$W/s3.env" "$W/host/etc/s3.env"
    cat >"$W/host/etc/backup.toml" <<TOML
schema = 1
stack = "usdcop"
timezone = "America/Bogota"
generation = "7d"
state = "$W/host/state"

[keys]
recipients = ["$OPS", "$ESCROW"]
signers = "allowed_signers"
host_key = "host_key"

[vault.local]
path = "$W/host/vault"
keep = { within = "7d", min = 3 }

[vault.offsite]
s3 = { endpoint = "$S3_ENDPOINT", bucket = "$S3_BUCKET", prefix = "$S3_PREFIX", region = "$S3_REGION", path_style = true }
credentials = { file = "s3.env" }
keep = { within = "30d", min = 7 }

[source.trading-db]
type = "postgres"
url = "postgres://backup@127.0.0.1:$PG_PORT/usdcop_trading"
password = { file = "pg.pass" }
globals = "passwords"
expect = [{ name = "candles", sql = "SELECT count(*) >= 200000 AND max(time) < \$1 FROM public.usdcop_m5_ohlcv" }]
objective = { rpo = "24h", rto = "30m" }

[source.config]
type = "files"
paths = ["$W/host/srv/usdcop/config", "$W/host/srv/usdcop/models"]

[source.secrets]
type = "files"
paths = ["$W/host/srv/usdcop/.env"]
secret = true

[job.nightly]
cron = "0 2 * * *"
timezone = "UTC"
then = ["replicate"]
TOML
}

# ---- The tool itself: every call of it is between here and the next line of dashes. ----

# backup ARGUMENT…: as the host's administrator would call it.
backup() { (cd / && BACKUP_CONFIG="$W/host/etc/backup.toml" "$BIN/backup" "$@"); }

# The recovery sheet is printed once; a human would put it on paper.
backup_init() {
    backup init >"$W/operator/recovery-sheet.txt" || return
    sed 's/^/   | /' "$W/operator/recovery-sheet.txt"
}

# Silent in a pipe when all is well: `runs` tells what happened.
backup_run() {
    backup run nightly
    backup runs
}

backup_list() { backup list; }

# sheet_command: the one command of the recovery sheet that restores on a bare machine, from its S3 vault; lines that
# end in a backslash are joined.
sheet_command() {
    sed -e ':join' -e '/\\$/ { N; s/\\\n[[:space:]]*/ /; b join' -e '}' "$W/operator/recovery-sheet.txt" |
        sed -n 's/^[[:space:]|$]*\(backup restore .*s3+http.*\)$/\1/p' | head -n 1
}

# on_bare_machine COMMAND…: with an empty environment but for the S3 keys. Not by `env -i NAME=VALUE`: keys do not
# belong into an argument list.
on_bare_machine() (
    local name
    for name in $(compgen -e); do unset "$name"; done
    unset -f backup
    set -a
    # shellcheck source=/dev/null
    . "$W/s3.env"
    set +a
    # shellcheck disable=SC2030,SC2031 # meant for this subshell only
    PGPASSWORD=$(<"$W/operator/superuser.pass")
    export AWS_REGION="$S3_REGION" PATH="$BIN:/usr/bin:/bin" HOME="$W/bare" LC_ALL=C.UTF-8 PGPASSWORD
    cd "$W/bare" || exit
    "$@"
)

# The bare machine: no configuration, no state, an empty home. From elsewhere come the sheet, an operator's identity,
# the S3 keys, and the new server's superuser.
restore_from_sheet() {
    local command words
    command=$(sheet_command)
    [ -n "$command" ] || die "the recovery sheet has no \`backup restore … s3+http…\` command"
    say "   the sheet says: $command"
    # The sheet quotes the address for a shell; here it is split without one.
    read -r -a words <<<"${command//\'/}"
    mkdir "$W/bare"
    local i
    # What a human fills in: the file that holds the identity.
    for i in "${!words[@]}"; do
        case "${words[i]}" in
        --identity) words[i + 1]="$W/operator/ops.txt" ;;
        esac
    done
    words+=(--into "postgres://postgres@127.0.0.1:$PG_PORT/usdcop_trading" --into-dir "$W/back")
    say "   typed: ${words[*]}"
    # `|| …`: otherwise `set -e` would leave from within, and the EXIT trap would talk into the file.
    on_bare_machine "${words[@]}" >"$W/proof.txt" || {
        i=$?
        cat "$W/proof.txt"
        return "$i"
    }
}

# ---- No call of the tool from here on. ----

# Everything that the host had, the local vault and the configuration with it.
disaster() {
    pg_stop "$W/pg1"
    rm -rf "$W/pg1" "$W/host"
    [ ! -e "$W/pg1" ] && [ ! -e "$W/host" ]
}

start_second_cluster() {
    (umask 077 && random_hex 16 >"$W/operator/superuser.pass")
    pg_start "$W/pg2" "$W/operator/superuser.pass"
    # shellcheck disable=SC2031
    export PGPASSFILE="$W/operator/pgpass"
    (umask 077 && pgpass_line 127.0.0.1 "$PG_PORT" postgres "$W/operator/superuser.pass" >"$PGPASSFILE")
    [ "$(sql postgres -A -t -c "SELECT count(*) FROM pg_database WHERE NOT datistemplate")" = 1 ]
    say "   empty, on 127.0.0.1:$PG_PORT"
}

# Our own eyes, not the tool's: psql and sha256sum. The roles' passwords are tried by logging in with one.
compare() {
    describe_database >"$W/after.db.txt" || die "the restored database cannot be described"
    diff -u "$W/before.db.txt" "$W/after.db.txt" || die "the restored database differs from the lost one"
    hash_restored_files >"$W/after.files.txt" || return
    diff -u "$W/before.files.txt" "$W/after.files.txt" || die "the restored files differ from the lost ones"
    (umask 077 && printf '127.0.0.1:%s:*:usdcop_app:fixture-not-a-secret-app\n' "$PG_PORT" >"$W/operator/app.pgpass")
    PGPASSFILE="$W/operator/app.pgpass" "$(pg_bin_dir)/psql" -X -q -A -t -h 127.0.0.1 -p "$PG_PORT" -U usdcop_app \
        -d usdcop_trading -c 'SELECT 1' >/dev/null || die "usdcop_app cannot log in with its old password"
    say "   database: $(wc -l <"$W/after.db.txt") lines of description equal; files: $(wc -l <"$W/after.files.txt") equal; usdcop_app logs in"
}

# The restored files under their old names: a restore keeps leading directories, or makes one per source, and it is
# not for this comparison to know. Each must be there once, and nothing else.
hash_restored_files() {
    local hash mode path found
    while read -r hash mode path; do
        mapfile -t found < <(find "$W/back" -type f -path "*/$path")
        [ ${#found[@]} -eq 1 ] || die "\`$path\` is ${#found[@]} times below $W/back"
        hash=$(sha256sum <"${found[0]}")
        mode=$(stat -c %a "${found[0]}")
        printf '%s  %s  %s\n' "${hash%% *}" "$mode" "$path"
    done <"$W/before.files.txt"
    [ "$(find "$W/back" -type f | wc -l)" -eq "$(wc -l <"$W/before.files.txt")" ] || die "there are other files below $W/back as well"
}

# For --keep.
say_what_is_left() {
    say ""
    say "left in $W (--keep):"
    if [ -e "$W/pg2/data/postmaster.pid" ]; then
        say "  PGPASSFILE=$W/operator/pgpass psql -h 127.0.0.1 -p $PG_PORT -U postgres usdcop_trading"
    fi
    if [ -n "$S3_PID" ]; then say "  S3: ${S3_ENDPOINT-} (process $S3_PID, keys in $W/s3.env)"; fi
    say "  recovery sheet and identities: $W/operator; files: $W/back"
    say "to remove: kill ${S3_PID:-} \$(head -qn1 $W/pg*/data/postmaster.pid); rm -rf $W"
}
