# shellcheck shell=bash disable=SC2034 # what it sets is used by those who source it
# Installs what is missing, and nothing else: no upgrade, no recommended packages, no server started. Needs say.sh.
#
# Debian's PostgreSQL packages make and start a cluster `main` when they are installed. We want the programs only, so
# the setting that prevents this is written before the server package comes, and only on a machine that had no
# postgresql-common: an administrator's own setting is never touched.

# Versions known to build with the toolchain in rust-toolchain.toml.
NEXTEST_VERSION=0.9.143
DENY_VERSION=0.20.2
FUZZ_VERSION=0.13.2
MUTANTS_VERSION=27.1.0
# As far as its habits are known to the tests.
MOTO_VERSION=5.2.5

# Directory of Debian's PostgreSQL programs: the newest major version with server and clients, or nothing.
pg_bin_dir() {
    local dir
    for dir in $(printf '%s\n' /usr/lib/postgresql/*/bin | sort -t/ -k5,5nr); do
        if [ -x "$dir/initdb" ] && [ -x "$dir/postgres" ] && [ -x "$dir/pg_dump" ]; then
            printf '%s\n' "$dir"
            return 0
        fi
    done
    return 1
}

# Packages that are missing for: a PostgreSQL server with clients, the stock tools of a restore, a C compiler.
missing_packages() {
    pg_bin_dir >/dev/null || printf '%s\n' postgresql-15 postgresql-client-15
    command -v age >/dev/null && command -v age-keygen >/dev/null || printf '%s\n' age
    command -v zstd >/dev/null || printf '%s\n' zstd
    command -v ssh-keygen >/dev/null || printf '%s\n' openssh-client
    command -v setpriv >/dev/null || printf '%s\n' util-linux
    command -v cc >/dev/null || printf '%s\n' gcc libc6-dev
}

# apt_get ARGUMENT…: as root, or through sudo.
apt_get() {
    local as_root=()
    if [ "$(id -u)" -ne 0 ]; then
        as_root=(sudo -n)
        if [ -t 0 ]; then as_root=(sudo); fi
    fi
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive UCF_FORCE_CONFFOLD=1 \
        apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null
}

apt_install() {
    apt_get install -y --no-upgrade --no-install-recommends "$@"
}

# Writes to a file that belongs to root.
no_default_cluster() {
    local file=/etc/postgresql-common/createcluster.conf
    local edit=(sed -i -E 's/^#?[[:space:]]*create_main_cluster[[:space:]]*=.*/create_main_cluster = false/' "$file")
    if [ "$(id -u)" -eq 0 ]; then "${edit[@]}"; else sudo "${edit[@]}"; fi
    grep -q '^create_main_cluster = false' "$file"
}

# ensure_packages: exits with the command to type when it cannot install.
ensure_packages() {
    local missing log
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -gt 0 ] || return 0
    local by_hand="apt-get install --no-install-recommends ${missing[*]}"
    command -v apt-get >/dev/null || die "missing: ${missing[*]}, and there is no apt-get here" "install them, then run this again"
    if [ "$(id -u)" -ne 0 ] && [ ! -t 0 ] && ! sudo -n true 2>/dev/null; then
        die "missing: ${missing[*]}, and this user may not install packages" "as root: $by_hand"
    fi
    say "   installing: ${missing[*]}"
    log=$(mktemp)
    if ! install_all "${missing[@]}" >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        rm -f "$log"
        die "cannot install ${missing[*]}" "as root: apt-get update && $by_hand"
    fi
    rm -f "$log"
    mapfile -t missing < <(missing_packages)
    [ ${#missing[@]} -eq 0 ] || die "still missing after the installation: ${missing[*]}"
}

# Called inside a condition, where `set -e` sleeps: every line that matters ends with `|| return`.
install_all() {
    local fresh=""
    [ -e /etc/postgresql-common/createcluster.conf ] || fresh=1
    # Package lists may be absent (fresh container) or too old: tried once more after an update.
    apt_install --dry-run "$@" >/dev/null 2>&1 || apt_get update || return
    case " $* " in
    *" postgresql-15 "*)
        if [ -n "$fresh" ]; then
            apt_install postgresql-common || { apt_get update && apt_install postgresql-common; } || return
            no_default_cluster || return
        fi
        ;;
    esac
    apt_install "$@" || { apt_get update && apt_install "$@"; }
}

# ensure_rust: cargo by rustup; a login shell's PATH is not taken for granted.
ensure_rust() {
    case ":$PATH:" in
    *":${CARGO_HOME:-$HOME/.cargo}/bin:"*) ;;
    *) PATH="${CARGO_HOME:-$HOME/.cargo}/bin:$PATH" ;;
    esac
    export PATH
    command -v cargo >/dev/null || die "cargo is not installed" "install Rust from https://rustup.rs, then run this again"
    # With rustup this fetches the pinned toolchain when it is absent.
    cargo --version >/dev/null || die "cargo does not start" "rustup toolchain install (the version stands in rust-toolchain.toml)"
}

# ensure_cargo_tool NAME VERSION [OPTION]…: builds it into the cargo home unless it is there already. Optimised little:
# the tools wait for our tests, not the other way round.
ensure_cargo_tool() {
    local name=$1 version=$2
    shift 2
    command -v "$name" >/dev/null && return 0
    say "   building $name $version (once)"
    CARGO_TARGET_DIR="$CARGO_TARGET_DIR/tools" CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 \
        CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_DEBUG=false \
        cargo install "$name" --version "$version" --locked --quiet "$@" || return
    rm -rf "$CARGO_TARGET_DIR/tools"
}

# ensure_moto: the mock of S3 with versions and locks, in a virtual environment of its own. Fails where it cannot be had.
ensure_moto() {
    command -v moto_server >/dev/null && return 0
    : "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
    local dir="${XDG_CACHE_HOME:-$HOME/.cache}/backup/moto-$MOTO_VERSION"
    if [ ! -x "$dir/bin/moto_server" ]; then
        command -v python3 >/dev/null || return
        say "   installing moto $MOTO_VERSION (once)"
        rm -rf "$dir"
        # Debian's python3 may lack venv; then pip's own way to a directory does.
        if python3 -m venv "$dir" >/dev/null 2>&1; then
            "$dir/bin/python" -m pip install --quiet "moto[server,s3]==$MOTO_VERSION" || { rm -rf "$dir"; return 1; }
        else
            rm -rf "$dir"
            python3 -m pip install --quiet --user "moto[server,s3]==$MOTO_VERSION" || return
            PATH="$(python3 -m site --user-base)/bin:$PATH"
            export PATH
            command -v moto_server >/dev/null
            return
        fi
    fi
    PATH="$dir/bin:$PATH"
    export PATH
}

# One target directory for all clones of this user, outside of them: the dependencies are compiled once.
default_target_dir() {
    : "${HOME:=$(getent passwd "$(id -u)" | cut -d: -f6)}"
    export HOME
    export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/backup/target}"
    mkdir -p "$CARGO_TARGET_DIR"
}
