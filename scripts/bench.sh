#!/usr/bin/env bash
# Times backup and restore of one database against the tools people use today, on this machine, in one run.
#
#   scripts/bench.sh [--scale 1.0] [--rounds 3] [--only WORK,…] [--write] [--keep]
#
# Makes a throw-away cluster with the database of fixtures/bench (scale 1.0: about 2.4 GB), then in each round runs every
# contestant once, ours and the peers' in turn (A B A B), so that a slow minute of a shared machine hits all of them.
# WORK: backup, next, restore, update, nights, memory; and of vaults, without a database: many (10,000 snapshots), objects
# (a generation of 250,000). Prints medians, ratios and raw rounds; --write puts them into docs/benchmarks.md. --keep leaves the cluster running.
#
# Ratios of one run on one machine mean something; seconds from two machines do not. Nothing here is a test.
# BACKUP_BENCH_BIN: a ready-built `backup`. BACKUP_BENCH_DIR: where the scratch directory is made (needs ~15 x the scale in GB, 40 GB for `memory`).
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/lib/say.sh
. "$ROOT/scripts/lib/say.sh"
# shellcheck source=scripts/lib/deps.sh
. "$ROOT/scripts/lib/deps.sh"
# shellcheck source=scripts/lib/pg.sh
. "$ROOT/scripts/lib/pg.sh"
# shellcheck source=scripts/lib/bench.sh
. "$ROOT/scripts/lib/bench.sh"
# shellcheck source=scripts/lib/s3.sh
. "$ROOT/scripts/lib/s3.sh"
# shellcheck source=scripts/lib/bench_vault.sh
. "$ROOT/scripts/lib/bench_vault.sh"

SCALE=1.0 ROUNDS=3 PG_PORT="" WRITE="" KEEP="" ONLY=backup,next,restore,update,nights,memory,many,objects
while [ $# -gt 0 ]; do
    case "$1" in
    --scale) SCALE=$2; shift ;;
    --rounds) ROUNDS=$2; shift ;;
    --only) ONLY=$2; shift ;;
    --write) WRITE=1 ;;
    --keep) KEEP=1 ;;
    -h | --help) sed -n '2,14s/^# \{0,1\}//p' "$0"; exit 0 ;;
    *) die "unknown argument \`$1\`" "scripts/bench.sh --help" ;;
    esac
    shift
done

W=$(mktemp -d "${BACKUP_BENCH_DIR:-${TMPDIR:-/tmp}}/backup-bench.XXXXXX")
chmod 711 "$W"
finish() {
    local status=$?
    trap - EXIT
    trap '' INT TERM
    say_failed_step "$status"
    if [ -n "$KEEP" ]; then
        say "left: $W, PostgreSQL on port ${PG_PORT-?}"
    else
        s3_stop
        pg_stop "$W/pg" || true
        rm -rf "$W" || true
    fi
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

unset BACKUP_CONFIG PGHOST PGHOSTADDR PGPORT PGUSER PGPASSWORD PGDATABASE PGSERVICE PGSERVICEFILE PGOPTIONS PGSSLMODE
export PGPASSFILE="$W/pgpass"
umask 022

step "install what is missing" bench_install
step "build the release binary" bench_build
case ",$ONLY," in
*,backup,* | *,next,* | *,restore,* | *,update,* | *,nights,* | *,memory,*)
    step "start PostgreSQL" bench_server
    step "load the database, scale $SCALE" bench_load
    ;;
esac
step "make keys, configuration, repositories" bench_prepare
case ",$ONLY," in *,backup,*) step "first backup, $ROUNDS rounds" bench_first ;; esac
case ",$ONLY," in *,next,*) step "next backup, 1 % appended, $ROUNDS rounds" bench_next ;; esac
case ",$ONLY," in *,restore,*) step "restore, $ROUNDS rounds" bench_restore ;; esac
case ",$ONLY," in *,update,*) step "after updates at random places" bench_updates ;; esac
case ",$ONLY," in *,nights,*) step "thirty nights of a mixed load" bench_nights ;; esac
case ",$ONLY," in *,memory,*) step "peak memory at 0.5, 2.4 and 10 GB" bench_memory ;; esac
case ",$ONLY," in *,many,*) step "$SNAPSHOTS snapshots in a stack" bench_many ;; esac
case ",$ONLY," in *,objects,*) step "$OBJECTS objects in a generation" bench_objects ;; esac

say ""
report | tee "$W/report.md"
if [ -n "$WRITE" ]; then
    mkdir -p "$ROOT/docs"
    install -m 644 "$W/report.md" "$ROOT/docs/benchmarks.md"
    say "written to docs/benchmarks.md"
fi
