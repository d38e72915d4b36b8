#!/usr/bin/env bash
# Real processes of `backup` on one vault, two at a time, killed at any moment: two runs, run and prune, replicate and
# prune, two prunes, run and verify; on directory vaults and, in turn, on vaults in our S3 test server.
#
#   scripts/chaos.sh [--minutes 15 | --seconds N] [--seed N]
#
# After each round everything that is listed and new is restored and compared with the files that were captured, and what
# policy promises must be listed. At the end of each part a run, a replication, two prunes and a verification must succeed
# alone, every snapshot restores, of deleted generations nothing is left, and no draft stays. The last line counts; no kill or
# no deletion is a failure: it would prove nothing. The seed is printed; --seed rolls the same dice again.
#
# CARGO_TARGET_DIR   where cargo builds; default: under the user's cache directory, shared by all clones
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
# shellcheck source=scripts/lib/say.sh
. scripts/lib/say.sh
# shellcheck source=scripts/lib/deps.sh
. scripts/lib/deps.sh

SECONDS_LONG=900
SEED=$((($(date +%s) + $$) % 1000000))
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) sed -n '2,13s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --minutes | --seconds | --seed)
        [[ "${2-}" =~ ^[0-9]+$ ]] || die "\`$1\` needs a number" "scripts/chaos.sh [--minutes 15 | --seconds N] [--seed N]"
        case "$1" in
        --minutes) SECONDS_LONG=$(($2 * 60)) ;;
        --seconds) SECONDS_LONG=$2 ;;
        --seed) SEED=$2 ;;
        esac
        shift 2
        ;;
    *) die "unknown argument \`$1\`" "scripts/chaos.sh [--minutes 15 | --seconds N] [--seed N]" ;;
    esac
done

ensure_rust
default_target_dir
say "chaos for $SECONDS_LONG s with seed $SEED"
LOG=$(mktemp)
trap 'rm -f "$LOG"' EXIT
export BACKUP_CHAOS_SECONDS=$SECONDS_LONG BACKUP_CHAOS_SEED=$SEED
cargo test --locked --quiet -p backup-cli --test suite -- --exact --nocapture \
    suite::chaos::what_is_promised_survives_processes_that_meet_and_are_killed 2>&1 | tee "$LOG"
# A name that no test has is no failure for the test runner.
grep -q '^chaos: ' "$LOG" || die "no test of this name was run" "look at tests/suite/chaos.rs"
