# shellcheck shell=bash disable=SC2034 # what it sets is used by those who source it
# The S3 endpoint of the quickstart: the workspace's test-only server on loopback, or one named by the environment.
# Needs say.sh; uses W, BIN. Sets S3_ENDPOINT, S3_BUCKET, S3_REGION, S3_PREFIX and the file $W/s3.env with the keys.

S3_PID=""

s3_start() {
    if [ -n "${BACKUP_QUICKSTART_S3_ENDPOINT-}" ]; then
        S3_ENDPOINT=$BACKUP_QUICKSTART_S3_ENDPOINT
        S3_BUCKET=${BACKUP_QUICKSTART_S3_BUCKET:?the bucket to use}
        S3_REGION=${BACKUP_QUICKSTART_S3_REGION:-us-east-1}
        S3_PREFIX="quickstart-$(date -u +%Y%m%dT%H%M%SZ)"
        s3_env "${AWS_ACCESS_KEY_ID:?}" "${AWS_SECRET_ACCESS_KEY:?}"
        say "   $S3_ENDPOINT/$S3_BUCKET/$S3_PREFIX (given; what is stored there stays there)"
        return
    fi
    S3_BUCKET=usdcop-offsite
    S3_REGION=us-east-1
    S3_PREFIX=v
    mkdir -m 700 "$W/s3"
    local access secret try
    access=$(random_hex 10)
    secret=$(random_hex 20)
    s3_env "$access" "$secret"
    : >"$W/s3.log" # before the look below, which may come first
    S3_SERVER_SECRET_KEY=$secret \
        "$BIN/s3-server" --root "$W/s3" --port 0 --bucket "$S3_BUCKET" --access-key "$access" >>"$W/s3.log" 2>&1 </dev/null &
    S3_PID=$!
    for try in {1..100}; do
        S3_ENDPOINT=$(sed -n -E 's/^(listening on )?(http:[^ ]*).*/\2/p' "$W/s3.log" | head -n 1)
        if [ -n "$S3_ENDPOINT" ]; then
            say "   $S3_ENDPOINT, bucket $S3_BUCKET"
            return
        fi
        kill -0 "$S3_PID" 2>/dev/null || break
        sleep 0.1
    done
    cat "$W/s3.log" >&2
    die "the S3 server did not say where it listens (looked $try times)"
}

# s3_env ACCESS SECRET: printf is a builtin, so the keys never stand in an argument list.
s3_env() {
    (umask 077 && printf 'AWS_ACCESS_KEY_ID=%s\nAWS_SECRET_ACCESS_KEY=%s\n' "$1" "$2" >"$W/s3.env")
}

# s3_stop: asks, then insists.
s3_stop() {
    local try
    [ -n "$S3_PID" ] || return 0
    kill -TERM "$S3_PID" 2>/dev/null || return 0
    for try in {1..30}; do
        kill -0 "$S3_PID" 2>/dev/null || break
        [ "$try" -lt 30 ] || kill -KILL "$S3_PID" 2>/dev/null || true
        sleep 0.1
    done
    wait "$S3_PID" 2>/dev/null || true
    S3_PID=""
}

# random_hex BYTES
random_hex() { head -c "$1" /dev/urandom | od -An -v -tx1 | tr -d ' \n'; }
