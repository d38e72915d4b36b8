#!/usr/bin/env bash
# Fuzzes the parsers of untrusted bytes (crates/backup-core/src/fuzzing.rs), one target after the other.
#
#   scripts/fuzz.sh [--seconds 600] [--keep] [TARGET…]
#
# Needs a nightly compiler (rustup toolchain install nightly) and builds cargo-fuzz where it is missing. What is found is
# left in fuzz/artifacts/<target>; a fixed one goes into fuzz/corpus/<target>, which the tests of backup-core run without
# a fuzzer. New inputs are collected outside of the checkout; --keep adds those that reach new code, small ones only, to
# fuzz/corpus.
#
# CARGO_TARGET_DIR   where cargo builds; default: under the user's cache directory, shared by all clones
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
# shellcheck source=scripts/lib/say.sh
. scripts/lib/say.sh
# shellcheck source=scripts/lib/deps.sh
. scripts/lib/deps.sh

FOR=600
KEEP=""
TARGETS=()
while [ $# -gt 0 ]; do
    case "$1" in
    -h | --help) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 0 ;;
    --seconds)
        [[ "${2-}" =~ ^[0-9]+$ ]] || die "\`--seconds\` needs a number" "scripts/fuzz.sh --seconds 600"
        FOR=$2
        shift 2
        ;;
    --keep) KEEP=1; shift ;;
    -*) die "unknown argument \`$1\`" "scripts/fuzz.sh [--seconds N] [--keep] [TARGET…]" ;;
    *)
        [ -e "fuzz/fuzz_targets/$1.rs" ] || die "no target \`$1\`" "one of: $(basename -s .rs fuzz/fuzz_targets/*.rs | tr '\n' ' ')"
        TARGETS+=("$1")
        shift
        ;;
    esac
done
[ ${#TARGETS[@]} -gt 0 ] || mapfile -t TARGETS < <(basename -s .rs fuzz/fuzz_targets/*.rs)

ensure_rust
default_target_dir
cargo +nightly --version >/dev/null 2>&1 || die "no nightly compiler" "rustup toolchain install nightly"
ensure_cargo_tool cargo-fuzz "$FUZZ_VERSION" || die "cannot build cargo-fuzz" "cargo install cargo-fuzz --version $FUZZ_VERSION --locked"
export CARGO_TARGET_DIR="$CARGO_TARGET_DIR/fuzz"

# fuzz_one TARGET: new inputs go into a folder of its own, which stays for the next time.
fuzz_one() {
    local target=$1 grown="$CARGO_TARGET_DIR/corpus/$1"
    mkdir -p "$grown"
    cargo +nightly fuzz run "$target" "$grown" "fuzz/corpus/$target" -- \
        -max_total_time="$FOR" -timeout=20 -rss_limit_mb=2048 -max_len=65536 -print_final_stats=1 -verbosity=0
    if [ -n "$KEEP" ]; then
        cargo +nightly fuzz cmin "$target" "$grown"
        find "$grown" -type f -size -4k -newer "$CARGO_TARGET_DIR/begun" | head -n 40 | xargs -r cp -n -t "fuzz/corpus/$target"
    fi
}

mkdir -p "$CARGO_TARGET_DIR"
touch "$CARGO_TARGET_DIR/begun"
step "build" cargo +nightly fuzz build
for target in "${TARGETS[@]}"; do step "$target, $FOR s" fuzz_one "$target"; done
say "fuzz: ${#TARGETS[@]} targets, $FOR s each, clean"
