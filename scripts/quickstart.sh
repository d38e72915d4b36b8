#!/usr/bin/env bash
# The whole story on one machine, in a few minutes: a sample stack is backed up, destroyed, and brought back.
#
#   scripts/quickstart.sh [--keep]
#
# Installs what is missing (PostgreSQL, age, zstd; Debian's packages), builds the release binary, starts a throw-away
# PostgreSQL and an S3-compatible server on loopback, loads fixtures/usdcop, then runs `backup init`, `backup run
# nightly`, `backup list`. Then the whole host is lost: cluster, files, configuration, local vault. An empty cluster and
# the command on the recovery sheet bring everything back from the S3 vault. Last comes the proof table.
#
# All of it lives in one scratch directory, removed at the end, also after a failure. --keep leaves it running.
#
# A real S3 endpoint instead of our test server: BACKUP_QUICKSTART_S3_ENDPOINT, BACKUP_QUICKSTART_S3_BUCKET,
# BACKUP_QUICKSTART_S3_REGION (us-east-1), AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY. What is stored there stays there.
# BACKUP_QUICKSTART_BIN: directory with ready-built `backup` and `s3-server`; nothing is built then.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib/say.sh
. "$ROOT/scripts/lib/say.sh"
# shellcheck source=scripts/lib/deps.sh
. "$ROOT/scripts/lib/deps.sh"
# shellcheck source=scripts/lib/pg.sh
. "$ROOT/scripts/lib/pg.sh"
# shellcheck source=scripts/lib/s3.sh
. "$ROOT/scripts/lib/s3.sh"
# shellcheck source=scripts/lib/fixture.sh
. "$ROOT/scripts/lib/fixture.sh"
# shellcheck source=scripts/lib/quickstart.sh
. "$ROOT/scripts/lib/quickstart.sh"

KEEP=""
case "${1-}" in
"") ;;
--keep) KEEP=1 ;;
-h | --help) sed -n '2,17s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) die "unknown argument \`$1\`" "scripts/quickstart.sh [--keep]" ;;
esac
[ $# -le 1 ] || die "too many arguments" "scripts/quickstart.sh [--keep]"

# Others may pass through (the server's user has its data below), nobody else may list it.
W=$(mktemp -d "${TMPDIR:-/tmp}/backup-quickstart.XXXXXX")
chmod 711 "$W"

finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    say_failed_step "$status"
    if [ -n "$KEEP" ]; then
        say_what_is_left
    else
        pg_stop "$W/pg1" || true
        pg_stop "$W/pg2" || true
        s3_stop
        rm -rf "$W" || true
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
trap 'exit 129' HUP

# Nothing of the caller's own setup may leak in.
unset BACKUP_CONFIG PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGDATABASE PGSERVICE PGSERVICEFILE PGOPTIONS PGSSLMODE
export PGPASSFILE="$W/host/etc/pgpass"
umask 022

step "install what is missing" install_missing
step "build the release binary" build
step "make the host: passwords, files" make_host
step "start PostgreSQL" start_first_cluster
step "start the S3 server" s3_start
step "load the sample database (210,240 candles, 20,000 trades)" load_database
step "write down what there is" describe_stack

step "make the operators' keys and the host's" make_keys
step "write backup.toml" write_config
step "backup init" backup_init
step "backup run nightly" backup_run
step "backup list" backup_list

step "disaster: the cluster, the files, the whole host are deleted" disaster
step "start a second, empty PostgreSQL" start_second_cluster
step "restore with the recovery sheet's command" restore_from_sheet
step "compare with what was there before, without our tool" compare

say ""
cat "$W/proof.txt"
say ""
say "quickstart: everything came back, $SECONDS s"
