# shellcheck shell=bash
# Talk of the scripts: headlines with durations, one way to fail, one way to skip. Sourced, never run.
#
# A step runs as a plain command, not inside a condition: `set -e` keeps working within it. The name of the step that
# failed is therefore printed by `say_failed_step`, called from the script's EXIT trap.

STEP=""
STEPS=0
SECONDS_AT_STEP=0

# Headline for a terminal or a log.
say() { printf '%s\n' "$*"; }

# step NAME COMMAND [ARGUMENT]…: runs the command under a headline and says how long it took.
step() {
    STEP=$1
    shift
    SECONDS_AT_STEP=$SECONDS
    say "== $STEP"
    "$@"
    say "   $STEP: ok, $((SECONDS - SECONDS_AT_STEP)) s"
    STEPS=$((STEPS + 1))
    STEP=""
}

# say_failed_step STATUS: names the step that was running, if one was.
say_failed_step() {
    if [ "$1" -ne 0 ] && [ -n "$STEP" ]; then
        say "FAILED: $STEP (exit $1 after $((SECONDS - SECONDS_AT_STEP)) s)" >&2
    fi
}

# die TEXT [HINT]: an error, and what to do next.
die() {
    printf 'error: %s\n' "$1" >&2
    [ -z "${2-}" ] || printf '\nhint: %s\n' "$2" >&2
    exit 1
}
