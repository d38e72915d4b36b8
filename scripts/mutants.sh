#!/usr/bin/env bash
# Mutation testing: changes the code, one place at a time, and sees whether a test fails. What survives is not tested.
#
#   scripts/mutants.sh [retention | seal | vault | prune]… [-- ARGUMENT…]     default: all four
#
# Each part runs the tests that are about it. A mutant that nobody can tell from the original has a line with its reason in
# .cargo/mutants.toml. Arguments after `--` go to cargo-mutants (`--shard 1/4`, `--list`). Results: $MUTANTS_OUT/<part>,
# default below the target directory. Exit 2 of cargo-mutants (somebody survived) ends this script.
#
# CARGO_TARGET_DIR   where cargo builds; default: under the user's cache directory, shared by all clones
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
# shellcheck source=scripts/lib/say.sh
. scripts/lib/say.sh
# shellcheck source=scripts/lib/deps.sh
. scripts/lib/deps.sh

PARTS=()
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 0 ;;
    retention | seal | vault | prune) PARTS+=("$1"); shift ;;
    --) shift; break ;;
    *) die "unknown argument \`$1\`" "scripts/mutants.sh [retention | seal | vault | prune]… [-- ARGUMENT…]" ;;
    esac
done
[ ${#PARTS[@]} -gt 0 ] || PARTS=(retention seal vault prune)

ensure_rust
default_target_dir
ensure_cargo_tool cargo-mutants "$MUTANTS_VERSION" || die "cannot build cargo-mutants" "cargo install cargo-mutants --version $MUTANTS_VERSION --locked"
MUTANTS_OUT=${MUTANTS_OUT:-$CARGO_TARGET_DIR/mutants}

# mutants PART ARGUMENT…: which code, and behind `--` which tests.
mutants() {
    local part=$1
    shift
    mkdir -p "$MUTANTS_OUT/$part"
    # A copy of the checkout is built, with a target directory of its own.
    env -u CARGO_TARGET_DIR cargo mutants --output "$MUTANTS_OUT/$part" --no-shuffle --colors never "$@"
}

core() { printf 'crates/backup-core/src/%s\n' "$@"; }

# on PART [ARGUMENT…]
on() {
    local part=$1 files=() file
    shift
    case "$part" in
    retention)
        mutants "$part" --package retention "$@" -- --package retention
        return
        ;;
    seal) mapfile -t files < <(core seal.rs seal/key.rs) ;;
    vault) mapfile -t files < <(core vault.rs vault/document.rs vault/inventory.rs vault/layout.rs vault/local.rs 'vault/local/*.rs' vault/retry.rs 'vault/retry/*.rs') ;;
    prune) mapfile -t files < <(core prune.rs 'prune/*.rs') ;;
    esac
    local only=()
    for file in "${files[@]}"; do only+=(--file "$file"); done
    # The unit tests, and those of the suite that drive the engine; PostgreSQL has no say here.
    mutants "$part" --package backup-core "${only[@]}" --test-package backup-core,backup-cli "$@" -- \
        --lib --test suite -- suite::engine suite::store_conformance suite::cli_vaults suite::cli_marks suite::cli_prune \
        "$(case "$part" in seal) echo seal ;; vault) echo vault ;; prune) echo prune ;; esac)::"
}

for part in "${PARTS[@]}"; do step "mutants of $part" on "$part" "$@"; done
say "mutants: ${PARTS[*]}${*:+ ($*)}: done, nobody survived among those that were tried"
