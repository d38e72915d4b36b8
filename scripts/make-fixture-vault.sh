#!/usr/bin/env bash
# Writes fixtures/vaults/v1 with the program of this checkout: once, before the format is frozen. From then on the tests
# read it (tests/suite/compat.rs), and nobody writes it again.
#
#   scripts/make-fixture-vault.sh [--replace]
#
# --replace   throws away the one that is there. Only before the release that freezes it.
#
# CARGO_TARGET_DIR   where cargo builds; default: under the user's cache directory, shared by all clones
set -euo pipefail

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$ROOT"
# shellcheck source=scripts/lib/say.sh
. scripts/lib/say.sh
# shellcheck source=scripts/lib/deps.sh
. scripts/lib/deps.sh

REPLACE=""
case "${1-}" in
"") ;;
--replace) REPLACE=1 ;;
-h | --help) sed -n '2,9s/^# \{0,1\}//p' "$0"; exit 0 ;;
*) die "unknown argument \`$1\`" "scripts/make-fixture-vault.sh [--replace]" ;;
esac

OUT="$ROOT/fixtures/vaults/v1"
if [ -e "$OUT/vault" ] && [ -z "$REPLACE" ]; then
    die "$OUT holds a vault" "a fixture is written once; --replace only before the format is frozen"
fi

ensure_packages
ensure_rust
default_target_dir
NEW=$(mktemp -d)
trap 'rm -rf "$NEW"' EXIT
BACKUP_FIXTURE_OUT="$NEW" cargo test --locked --quiet -p backup-cli --test suite -- --exact \
    suite::compat::a_vault_of_today_is_read_as_the_fixtures_are
# A name that no test has is no failure for the test runner.
[ -e "$NEW/SHA256SUMS" ] || die "no fixture was written" "look at tests/suite/compat.rs"
mkdir -p "$OUT"
for part in vault expected allowed_signers identity-for-tests-only.txt SHA256SUMS; do
    rm -rf "${OUT:?}/$part"
    cp -r "$NEW/$part" "$OUT/$part"
done
say "$OUT: $(find "$OUT" -type f | wc -l) files, $(du -sk --apparent-size "$OUT" | cut -f1) KiB; now commit it"
