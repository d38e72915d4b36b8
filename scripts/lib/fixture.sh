# shellcheck shell=bash
# The sample stack `usdcop` brought to life. Needs say.sh and pg.sh; ROOT is the checkout.

FIXTURE="$ROOT/fixtures/usdcop"
# Of the bytes that `write_model` makes; models/ppo_production/card.json names the same file by its MD5.
MODEL_SHA256=c97231439018ebbaaf6b47d363474ff548b35bfcdd2e5e99df53018589ec396f
MODEL_BYTES=2097152

# load_database: roles, database and rows into the empty cluster at PG_PORT; the result must be the one written down.
load_database() {
    sql postgres -f "$FIXTURE/schema.sql" >/dev/null
    sql usdcop_trading -f "$FIXTURE/data.sql" >/dev/null
    describe_database | sed '/^# relations/,$d' | diff -u "$FIXTURE/expected.txt" - >&2 || die "the sample database is not the one of fixtures/usdcop/expected.txt"
}

# describe_database: everything that must survive, as text (tables with counts and hashes, objects, rights, roles).
describe_database() { sql usdcop_trading -A -t -f "$FIXTURE/check.sql"; }

# write_model FILE: 2 MiB that do not compress, the same on every machine (the minimal standard generator, exact in
# double precision; byte 0 left out, for awks that cannot print it). A binary of this size has no place in Git.
write_model() {
    LC_ALL=C awk -v n="$MODEL_BYTES" 'BEGIN {
        x = 20241101
        for (i = 0; i < n; i++) { x = (x * 16807) % 2147483647; printf "%c", int(x / 8421504) % 255 + 1 }
    }' >"$1"
    printf '%s  %s\n' "$MODEL_SHA256" "$1" | sha256sum --check --status - || die "the generated model file is not the expected one"
}

# write_files DIRECTORY: configuration, model and .env, with the modes of a real deployment.
write_files() {
    mkdir -p "$1"
    cp -R "$FIXTURE/files/." "$1/"
    write_model "$1/models/ppo_production/final_model.zip"
    find "$1" -type d -exec chmod 755 {} +
    find "$1" -type f -exec chmod 644 {} +
    chmod 600 "$1/.env"
}

# hash_files DIRECTORY: one line per file, `sha256  mode  path`, sorted.
hash_files() {
    (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | while IFS= read -r -d '' file; do
        printf '%s  %s  %s\n' "$(sha256sum <"$file" | cut -d' ' -f1)" "$(stat -c %a "$file")" "${file#./}"
    done)
}
