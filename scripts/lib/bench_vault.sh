# shellcheck shell=bash
# Rows of scripts/bench.sh about a vault's size, not a database's: 10,000 snapshots in a stack, 250,000 objects in a
# generation. Needs bench.sh's other pieces (measure, BIN, W) and s3.sh. SNAPSHOTS and OBJECTS make it smaller.

SNAPSHOTS=${BACKUP_BENCH_SNAPSHOTS:-10000} OBJECTS=${BACKUP_BENCH_OBJECTS:-250000}

# vault_config DIR VAULT-TOML SOURCES: a configuration with sources s01, s02, … that are files.
vault_config() {
    local dir=$1 vault=$2 sources=$3 source
    mkdir -p "$dir/state" "$dir/files"
    chmod 700 "$dir/state"
    echo small >"$dir/files/a"
    {
        printf 'schema = 1\nstack = "many"\ntimezone = "UTC"\nstate = "%s"\n' "$dir/state"
        printf '[keys]\nrecipients = ["%s"]\nsigners = "%s"\nhost_key = "%s"\n' "$RECIPIENT" "$W/allowed_signers" "$W/host_key"
        printf '%s\n' "$vault"
        for source in $(seq -f 's%02g' "$sources"); do
            printf '[source.%s]\ntype = "files"\npaths = ["%s"]\n' "$source" "$dir/files"
        done
    } >"$dir/backup.toml"
}

local_vault() { printf '[vault.local]\npath = "%s"\nkeep = { within = "30d", min = 3 }' "$1"; }
# s3_vault PREFIX ID
s3_vault() {
    printf '[vault.offsite]\ncredentials = { file = "%s" }\nkeep = { within = "30d", min = 3 }\n' "$W/s3.env"
    printf 'id = "%s"\n' "$2"
    printf 's3 = { endpoint = "%s", bucket = "%s", prefix = "%s", region = "%s", path_style = true }' "$S3_ENDPOINT" "$S3_BUCKET" "$1" "$S3_REGION"
}

# many WORK WHO CONFIG VERB…: one row.
many() {
    local work=$1 who=$2 config=$3
    shift 3
    measure "$work" "$who" - "$BIN/backup" --config "$config" "$@"
}

# Three rounds of what an operator types every day, from this host's state and a folder, then from nothing but a bucket.
bench_many() {
    local round verb id per=$((SNAPSHOTS / 14))
    mkdir "$W/many" "$W/many-vault"
    chmod 700 "$W/many-vault"
    vault_config "$W/many" "$(local_vault "$W/many-vault")" 14
    "$BIN/backup" --config "$W/many/backup.toml" init >"$W/out" 2>&1 || { cat "$W/out" >&2; return 1; }
    "$BIN/make-vault" --vault "$W/many-vault" --state "$W/many/state" --stack many --host-key "$W/host_key" \
        --recipient "$RECIPIENT" --sources 14 --snapshots "$per" --objects 1
    # The first plan reads every document; what it learns is remembered.
    many "first-prune-plan-of-$((per * 14))-snapshots" ours_directory "$W/many/backup.toml" prune
    for ((round = 1; round <= ROUNDS; round++)); do
        for verb in list status prune; do
            many "$verb-of-$((per * 14))-snapshots" ours_directory "$W/many/backup.toml" "$verb"
        done
    done
    # The folder as it is becomes the bucket's content, and is asked by a machine that has no state.
    s3_start
    [ -n "$S3_PID" ] || die "these rows fill the bucket's folder: not possible with a given endpoint"
    cp -r "$W/many-vault" "$W/s3/$S3_BUCKET/$S3_PREFIX"
    id=$(sed -n 's/^id = "\(.*\)"/\1/p' "$W/many/backup.toml")
    for ((round = 1; round <= ROUNDS; round++)); do
        for verb in list status prune; do
            rm -rf "$W/bare"
            mkdir "$W/bare"
            vault_config "$W/bare" "$(s3_vault "$S3_PREFIX" "$id")" 14
            many "$verb-of-$((per * 14))-snapshots" ours_bare_bucket "$W/bare/backup.toml" "$verb"
        done
    done
    s3_stop
    rm -rf "$W/many" "$W/bare" "$W/many-vault" "$W/s3"
}

# Memory in a generation of a quarter of a million objects.
bench_objects() {
    local verb
    mkdir "$W/objects" "$W/objects-vault"
    chmod 700 "$W/objects-vault"
    vault_config "$W/objects" "$(local_vault "$W/objects-vault")" 1
    # No less than what the generation holds: a run would call that suspect.
    head -c "$((OBJECTS * 64))" /dev/urandom >"$W/objects/files/a"
    "$BIN/backup" --config "$W/objects/backup.toml" init >"$W/out" 2>&1 || { cat "$W/out" >&2; return 1; }
    "$BIN/make-vault" --vault "$W/objects-vault" --state "$W/objects/state" --stack many --host-key "$W/host_key" \
        --recipient "$RECIPIENT" --sources 1 --snapshots 1 --objects "$OBJECTS"
    for verb in run verify audit prune; do
        many "$verb-of-$OBJECTS-objects" ours "$W/objects/backup.toml" "$verb"
    done
    many "verify-read-of-$OBJECTS-objects" ours "$W/objects/backup.toml" verify --read-data 1/1
    rm -rf "$W/objects" "$W/objects-vault"
}
