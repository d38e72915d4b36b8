#!/usr/bin/env bash
# What our S3 client does to a real S3-compatible server of another maker: garage, on loopback, with its data on disk.
#
#   scripts/garage.sh
#
# Installs garage (built from its published source: about 20 minutes, once; licence AGPL-3.0, so it is run and never linked),
# starts one node in a scratch directory, then runs the contract of every store against it (`store_conformance`), what the
# probe makes of its promises, and the whole story of scripts/quickstart.sh: backup, disaster, restore, comparison.
#
# Not in CI: its build alone takes longer than all tests. CI has an imitation of what was seen here (`S3Server::start_lax`).
# BACKUP_GARAGE_BIN: a ready-built garage. BACKUP_QUICKSTART_BIN: directory with ready-built `backup` and `s3-server`.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib/say.sh
. "$ROOT/scripts/lib/say.sh"
# shellcheck source=scripts/lib/deps.sh
. "$ROOT/scripts/lib/deps.sh"
# shellcheck source=scripts/lib/s3.sh
. "$ROOT/scripts/lib/s3.sh"

case "${1-}" in
"") ;;
-h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) die "unknown argument \`$1\`" "scripts/garage.sh" ;;
esac

# As far as its habits are known.
GARAGE_VERSION=2.5.0
GARAGE_PID=""
W=$(mktemp -d "${TMPDIR:-/tmp}/backup-garage.XXXXXX")
finish() {
    local status=$?
    trap - EXIT
    say_failed_step "$status"
    [ -z "$GARAGE_PID" ] || { kill "$GARAGE_PID" 2>/dev/null && wait "$GARAGE_PID" 2>/dev/null; } || true
    rm -rf "$W" || true
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
cd "$ROOT"

garage_install() {
    local root="${XDG_CACHE_HOME:-$HOME/.cache}/backup/garage-$GARAGE_VERSION"
    GARAGE=${BACKUP_GARAGE_BIN:-$root/bin/garage}
    [ -x "$GARAGE" ] || cargo install garage --version "$GARAGE_VERSION" --locked --root "$root"
    say "   $("$GARAGE" --version)"
}

# Three ports that nobody listens on now: garage takes no 0.
free_ports() {
    local port found=()
    for port in $(shuf -i 20000-29999 -n 50); do
        if ! (exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; then found+=("$port"); fi
        [ ${#found[@]} -lt 3 ] || break
    done
    printf '%s\n' "${found[*]}"
}

garage_start() {
    local rpc api admin try
    read -r rpc api admin < <(free_ports)
    mkdir -m 700 "$W/meta" "$W/data"
    (umask 077 && cat >"$W/garage.toml" <<TOML
metadata_dir = "$W/meta"
data_dir = "$W/data"
db_engine = "sqlite"
replication_factor = 1
rpc_bind_addr = "127.0.0.1:$rpc"
rpc_public_addr = "127.0.0.1:$rpc"
rpc_secret = "$(random_hex 32)"
[s3_api]
s3_region = "garage"
api_bind_addr = "127.0.0.1:$api"
root_domain = ".s3.garage"
[admin]
api_bind_addr = "127.0.0.1:$admin"
admin_token = "$(random_hex 16)"
TOML
    )
    AWS_ACCESS_KEY_ID=GK$(random_hex 12) AWS_SECRET_ACCESS_KEY=$(random_hex 32)
    export AWS_ACCESS_KEY_ID AWS_SECRET_ACCESS_KEY
    GARAGE_DEFAULT_ACCESS_KEY=$AWS_ACCESS_KEY_ID GARAGE_DEFAULT_SECRET_KEY=$AWS_SECRET_ACCESS_KEY GARAGE_DEFAULT_BUCKET=vault \
        "$GARAGE" -c "$W/garage.toml" server --single-node --default-bucket >"$W/garage.log" 2>&1 </dev/null &
    GARAGE_PID=$!
    for try in {1..150}; do
        if "$GARAGE" -c "$W/garage.toml" bucket info vault >/dev/null 2>&1 && (exec 3<>"/dev/tcp/127.0.0.1/$api") 2>/dev/null; then
            ENDPOINT="http://127.0.0.1:$api"
            say "   $ENDPOINT, bucket vault"
            return
        fi
        kill -0 "$GARAGE_PID" 2>/dev/null || break
        sleep 0.2
    done
    tail -n 20 "$W/garage.log" >&2
    die "garage did not answer (looked $try times)"
}

conformance() {
    BACKUP_TEST_S3_ENDPOINT=$ENDPOINT BACKUP_TEST_S3_BUCKET=vault BACKUP_TEST_S3_REGION=garage \
        BACKUP_TEST_S3_ACCESS_KEY=$AWS_ACCESS_KEY_ID BACKUP_TEST_S3_SECRET_KEY=$AWS_SECRET_ACCESS_KEY \
        cargo test --locked --quiet -p backup-cli --test suite -- --nocapture an_endpoint_given_by_environment | tee "$W/out"
    # A name that no test has is no failure for the test runner, and a skipped test none either.
    if ! grep -qE '^test result: ok. [1-9]' "$W/out" || grep -q 'is not set' "$W/out"; then
        die "nothing was run against garage" "look at tests/suite/store_conformance.rs"
    fi
}

story() {
    BACKUP_QUICKSTART_S3_ENDPOINT=$ENDPOINT BACKUP_QUICKSTART_S3_BUCKET=vault BACKUP_QUICKSTART_S3_REGION=garage \
        scripts/quickstart.sh
}

ensure_rust
default_target_dir
step "install garage $GARAGE_VERSION" garage_install
step "start garage" garage_start
step "the contract of every store" conformance
step "backup, disaster, restore" story
say "garage: the contract holds, everything came back, $SECONDS s"
