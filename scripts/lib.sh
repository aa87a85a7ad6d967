# Shared by the scripts; sourced, never run. Every process started here is stopped by its id.
# shellcheck shell=bash

# Process ids to stop at the end, in the order of their start.
STARTED=()

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# start LOG COMMAND...: runs it in the background; its output goes to LOG.
start() {
    local log=$1
    shift
    "$@" >"$log" 2>&1 </dev/null &
    STARTED+=($!)
}

# Id of the process started last.
last_pid() { echo "${STARTED[-1]}"; }

# stop PID: ends a process that start began (STOP_SIGNAL, default TERM), and waits for it.
stop() {
    kill -"${STOP_SIGNAL:-TERM}" "$1" 2>/dev/null || true
    wait "$1" 2>/dev/null || true
}

# Ends everything start began, last one first. Set as a trap by every script that starts something.
stop_all() {
    local i
    for ((i = ${#STARTED[@]} - 1; i >= 0; i--)); do
        stop "${STARTED[i]}"
    done
    STARTED=()
}

# wait_for_url URL PID LOG [SECONDS]: until it answers 2xx; shows LOG when the process is gone.
wait_for_url() {
    local url=$1 pid=$2 log=$3 left=$((${4:-30} * 20))
    until curl -fsS -o /dev/null --max-time 2 --noproxy '*' "$url" 2>/dev/null; do
        if ! kill -0 "$pid" 2>/dev/null; then
            tail -n 30 "$log" >&2
            fail "it ended before $url answered"
        fi
        ((left-- > 0)) || { tail -n 30 "$log" >&2; fail "$url did not answer in time"; }
        sleep 0.05
    done
}

# status_of CURL-ARGUMENTS...: the status code alone.
status_of() { curl -sS -o /dev/null -w '%{http_code}' --max-time 10 --noproxy '*' "$@" || true; }

# target_dir: where cargo puts what it builds.
target_dir() { echo "${CARGO_TARGET_DIR:-$PWD/target}"; }

# build_program [PROFILE] [claviger|bare|tls-load]: builds it and prints its path. `dev` is ready soonest and
# shares its work with the tests; `quick` and `release` are faster once they run.
build_program() {
    local profile=${1:-dev} name=${2:-claviger} manifest=Cargo.toml folder=${1:-dev}
    [[ $name == claviger ]] || manifest=benches/bare/Cargo.toml
    [[ $profile != dev ]] || folder=debug
    cargo build --locked --profile "$profile" --bin "$name" --manifest-path "$manifest" \
        --target-dir "$(target_dir)" >&2
    echo "$(target_dir)/$folder/$name"
}
