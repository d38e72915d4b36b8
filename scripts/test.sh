#!/usr/bin/env bash
# The gate: installs what the tests need, then formatting, lints, tests, doctests, documentation, dependencies.
#
#   scripts/test.sh            everything
#   scripts/test.sh --quick    formatting, lints and tests
#
# CARGO_TARGET_DIR   where cargo builds; default: under the user's cache directory, shared by all clones
# TMPDIR             where tests work; default: a directory in /dev/shm where there is memory for it (they sync thousands of files)
# REQUIRE            names, separated by commas (pg15,pg18,s3,moto,stock-tools): what may not be skipped; servers pg13, pg16,
#                    pg17, pg18 that it names are installed (BACKUP_PG_DIR: where)
# CI                 set: nextest's profile `ci`
#
# Whatever cannot run says `SKIPPED: what: why`, here or in a test (tests append such lines to BACKUP_SKIPS_FILE, since
# nextest hides the output of tests that pass). The first word of `what` is the name that REQUIRE knows.
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
# shellcheck source=scripts/lib/say.sh
. scripts/lib/say.sh
# shellcheck source=scripts/lib/deps.sh
. scripts/lib/deps.sh
# shellcheck source=scripts/lib/pgmajors.sh
. scripts/lib/pgmajors.sh

QUICK=""
case "${1-}" in
"") ;;
--quick) QUICK=1 ;;
-h | --help) sed -n '2,15s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) die "unknown argument \`$1\`" "scripts/test.sh [--quick]" ;;
esac
[ $# -le 1 ] || die "too many arguments" "scripts/test.sh [--quick]"

SCRATCH=$(mktemp -d)
SKIPS="$SCRATCH/skips"
: >"$SKIPS"
# Tests run as root may run parts as another user: the file must be open to them, its directory too.
chmod 711 "$SCRATCH"
chmod 666 "$SKIPS"
export BACKUP_SKIPS_FILE="$SKIPS"

WORK=""
finish() {
    local status=$?
    trap - EXIT
    [ -z "$WORK" ] || rm -rf "$WORK"
    say_failed_step "$status"
    say "skips: $(wc -l <"$SKIPS")"
    rm -rf "$SCRATCH"
    exit "$status"
}
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# skip WHAT WHY
skip() {
    say "SKIPPED: $1: $2"
    printf 'SKIPPED: %s: %s\n' "$1" "$2" >>"$SKIPS"
    refuse_required_skips
}

# Fails when something was skipped that REQUIRE names.
refuse_required_skips() {
    local line what
    while IFS= read -r line; do
        what=${line#SKIPPED: }
        what=${what%%[!A-Za-z0-9-]*}
        case ",${REQUIRE-}," in
        *",$what,"*) die "\`$what\` is required here and was skipped: $line" "take it out of REQUIRE, or install what it needs" ;;
        esac
    done <"$SKIPS"
}

plain() { sed -E 's/\x1b\[[0-9;]*m//g' "$@"; }

colour() { if [ -t 1 ]; then printf always; else printf never; fi; }

# Majors that REQUIRE names and Debian does not have.
required_majors() { tr ', ' '\n\n' <<<"${REQUIRE-}" | sed -n 's/^pg\([0-9][0-9]\)$/\1/p' | grep -v '^15$' || true; }

tools() {
    local majors
    ensure_packages
    mapfile -t majors < <(required_majors)
    if [ ${#majors[@]} -gt 0 ]; then ensure_pg_majors "${majors[@]}" || say "   (tests that need them will say so)"; fi
    ensure_rust
    ensure_moto || say "   (moto cannot be had; tests that need it will say so)"
    default_target_dir
    say "   $(cargo --version), target directory $CARGO_TARGET_DIR"
    ensure_cargo_tool cargo-nextest "$NEXTEST_VERSION" --no-default-features --features default-no-update ||
        die "cannot build cargo-nextest" "cargo install cargo-nextest --version $NEXTEST_VERSION --locked"
}

# Every test works in a temporary directory, and what it does is synced to the disk as if it mattered: most of the suite's time
# on a disk, and none of its meaning (a power cut is acted out by `suite::engine`). Only where nobody chose a place, 12 GiB of
# memory are to be had, and files may be executed there.
work_in_memory() {
    local place=/dev/shm available free
    [ -z "${TMPDIR-}" ] && [ -d "$place" ] || return 0
    available=$(awk '$1 == "MemAvailable:" { print $2 }' /proc/meminfo)
    free=$(df -Pk "$place" | awk 'NR == 2 { print $4 }')
    [ "${available:-0}" -ge 12582912 ] && [ "${free:-0}" -ge 8388608 ] || return 0
    WORK=$(mktemp -d "$place/backup-test-XXXXXX")
    chmod 1777 "$WORK"
    printf '#!/bin/sh\n' >"$WORK/try"
    chmod 755 "$WORK/try"
    if "$WORK/try" 2>/dev/null && rm "$WORK/try"; then
        export TMPDIR="$WORK"
        say "   tests work in $WORK"
    else
        rm -rf "$WORK"
        WORK=""
    fi
}

scripts() {
    local files=(.ci/run scripts/*.sh scripts/lib/*.sh) file
    for file in "${files[@]}"; do bash -n "$file"; done
    # Advice, not a gate: another version of shellcheck has other opinions.
    if command -v shellcheck >/dev/null; then shellcheck -x "${files[@]}" || say "   (shellcheck's findings do not fail the run)"; fi
}

format() { cargo fmt --all --check; }

lints() { cargo clippy --workspace --all-targets --locked --quiet -- -D warnings; }

tests() {
    local log="$SCRATCH/nextest" ignored
    local profile=default
    if [ -n "${CI-}" ]; then profile=ci; fi
    # More than cores, since most tests wait for a server, a child or a disk.
    cargo nextest run --workspace --locked --profile "$profile" --test-threads "$((2 * $(nproc)))" --color "$(colour)" 2>&1 | tee "$log" || {
        cat "$SKIPS"
        return 1
    }
    TESTS=$(plain "$log" | sed -n 's/^ *Summary \[[^]]*\] *//p' | tail -n 1)
    [ -n "$TESTS" ] || die "nextest printed no summary"
    cat "$SKIPS"
    ignored=$(sed -n 's/.*, \([0-9]*\) skipped.*/\1/p' <<<"$TESTS")
    if [ "${ignored:-0}" -gt 0 ]; then skip "ignored tests" "$ignored are marked #[ignore]"; fi
    refuse_required_skips
}

# Real processes that are killed, for a minute; `scripts/chaos.sh` alone takes fifteen.
chaos() { scripts/chaos.sh --seconds 60 --seed 777; }

doctests() {
    local log="$SCRATCH/doctests"
    cargo test --doc --workspace --locked --quiet 2>&1 | tee "$log"
    DOCTESTS=$(plain "$log" | awk '/^test result: ok/ { n += $4 } END { print n + 0 }')
}

documentation() { RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --quiet; }

dependencies() {
    local log="$SCRATCH/deny"
    if ! ensure_cargo_tool cargo-deny "$DENY_VERSION"; then
        skip "cargo-deny" "cannot be built here"
        return
    fi
    if ! cargo deny --locked check --hide-inclusion-graph bans licenses sources >"$log" 2>&1; then
        cat "$log"
        return 1
    fi
    say "   $(plain "$log" | tail -n 1); in more than one version: $(plain "$log" | grep -c '^warning\[duplicate\]' || true) crates"
}

# The database of known flaws is a Git repository on github.com: not everywhere within reach.
advisories() {
    local log="$SCRATCH/advisories"
    command -v cargo-deny >/dev/null || { skip "advisories" "no cargo-deny"; return; }
    if ! timeout 120 cargo deny --locked fetch db >"$log" 2>&1; then
        skip "advisories" "the advisory database cannot be had ($(plain "$log" | grep -E 'fatal:|ERROR' | tail -n 1 | cut -c1-160))"
        return
    fi
    cargo deny --locked check --disable-fetch --hide-inclusion-graph advisories
}

working_tree() { git -c safe.directory="$ROOT" status --porcelain 2>/dev/null; }

clean_tree() {
    [ "$GIT" = yes ] || { skip "clean tree" "not a Git checkout"; return; }
    working_tree >"$SCRATCH/tree.after" || return
    diff "$SCRATCH/tree.before" "$SCRATCH/tree.after" || die "the tests changed the checkout" "tests write below a temporary directory only"
}

GIT=no
if command -v git >/dev/null && working_tree >"$SCRATCH/tree.before"; then GIT=yes; fi
TESTS="" DOCTESTS="not run"

step "tools" tools
if [ -z "$QUICK" ]; then step "scripts" scripts; fi
step "format" format
step "lints" lints
work_in_memory
step "tests" tests
if [ -z "$QUICK" ]; then
    step "chaos" chaos
    step "doctests" doctests
    step "documentation" documentation
    step "dependencies" dependencies
    step "advisories" advisories
    step "clean tree" clean_tree
fi
say "ok: $STEPS steps in $SECONDS s; nextest: $TESTS; doctests: $DOCTESTS"
