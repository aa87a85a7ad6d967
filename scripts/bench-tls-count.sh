#!/usr/bin/env bash
# bench-tls-count.sh: instructions of a TLS connection without a request, under callgrind: claviger
# among NAMES (1000) names beside bare Pingora with one static certificate. Counted as the difference
# of two runs with a fixed number of connections each, so that the start cancels out. Steady on a
# busy machine, where times are not. SYMBOLS=1 keeps symbols and the files, so that
# callgrind_annotate shows where the instructions go. CLAVIGER, BARE and LOAD name programs that are
# built already; ONLY, a pattern, picks cases.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/proxylib.sh
NAMES=${NAMES:-1000} FEW=${FEW:-100} MANY=${MANY:-500}
if [[ ${SYMBOLS:-} == 1 ]]; then
    export CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
fi
prepare tls-count
[[ ${SYMBOLS:-} != 1 ]] || trap stop_all EXIT
scripts/setup.sh count
bare=${BARE:-$(build_program "${PROFILE:-release}" bare)}
load=${LOAD:-$(build_program "${PROFILE:-release}" tls-load)}
PATH="$PWD/.venv/bin:$PATH"

# count NAME READY-URL TLS-PORT NAMES-FILE CONNECTIONS OPTIONS -- COMMAND...: sets total.
count() {
    local name=$1 ready=$2 port=$3 names=$4 connections=$5 options=() log
    shift 5
    while [[ $1 != -- ]]; do
        options+=("$1")
        shift
    done
    shift
    log=$dir/$name-$connections.log
    start "$log" valgrind --tool=callgrind \
        --callgrind-out-file="$dir/callgrind.$name.$connections" "$@"
    wait_for_url "$ready" "$(last_pid)" "$log" 300
    # Under valgrind the listeners may open a moment after readiness.
    curl -sS -o /dev/null --noproxy '*' --retry 20 --retry-delay 1 --retry-connrefused --insecure \
        --connect-to "::127.0.0.1:$port" "https://$(head -n 1 "$names")/" ||
        fail "$name opened no TLS port"
    "$load" "127.0.0.1:$port" "$names" --threads 1 --connections "$connections" "${options[@]}" \
        >"$dir/load.log" || fail "tls-load on $name: $(cat "$dir/load.log")"
    stop "$(last_pid)"
    total=$(awk '/Collected/ { print $NF }' "$log")
    [[ -n $total ]] || fail "$name was not counted: see $log"
}

# per_connection NAME READY-URL TLS-PORT NAMES-FILE OPTIONS -- COMMAND...: sets ir.
per_connection() {
    local head=("${@:1:4}") few
    shift 4
    count "${head[@]}" "$FEW" "$@"
    few=$total
    count "${head[@]}" "$MANY" "$@"
    ir=$(((total - few) / (MANY - FEW)))
}

say "Instructions per connection: claviger among $NAMES names, bare with one certificate, ratio"
start_nginx upstream 18001
# NAME KEY sessions|tickets OPTIONS
CASES=(
    "ecdsa-1.3 ecdsa sessions --tls 1.3"
    "ecdsa-1.2 ecdsa sessions --tls 1.2"
    "rsa-1.3 rsa sessions --tls 1.3"
    "resumed-1.3 ecdsa tickets --tls 1.3 --resume"
    "resumed-1.2 ecdsa tickets --tls 1.2 --resume"
)
for case in "${CASES[@]}"; do
    read -r name key sessions options <<<"$case"
    [[ $name =~ ${ONLY:-.} ]] || continue
    folder=$dir/$key-$sessions
    tickets=()
    [[ $sessions == sessions ]] || tickets=(--tickets)
    [[ -e $folder ]] || python3 scripts/bench-certificates.py "$folder" --port 18520 --key "$key" \
        --certificates "$NAMES" "${tickets[@]}"
    names=$folder/names.txt
    if [[ $options == *--resume* ]]; then
        # Both connect to these once before; it is no part of the difference.
        head -n 20 "$names" >"$folder/few-names.txt"
        names=$folder/few-names.txt
    fi
    # shellcheck disable=SC2086
    per_connection "bare-$name" http://127.0.0.1:18540/ 18543 "$names" $options -- "$bare" \
        127.0.0.1:18540 127.0.0.1:18001 127.0.0.1:18543 "$folder/static.pem" \
        "$folder/static.key" "$sessions"
    bare_ir=$ir
    # shellcheck disable=SC2086
    per_connection "$name" http://127.0.0.1:18521/status/ready 18523 "$names" $options -- \
        "$claviger" run --config "$folder/config.yaml" --resources "$folder/apisix.yaml"
    awk -v name="$name" -v ir="$ir" -v bare="$bare_ir" \
        'BEGIN { printf "%-16s %10d %10d %8.3f\n", name, ir, bare, ir / bare }'
done
[[ ${SYMBOLS:-} != 1 ]] || echo "callgrind_annotate $dir/callgrind.NAME.$MANY"
