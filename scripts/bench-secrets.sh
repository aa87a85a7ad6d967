#!/usr/bin/env bash
# bench-secrets.sh: 100 000 consumers whose keys sit in 1 000 documents of a real OpenBao server.
# How long the gateway takes to load them, what each costs in memory, how long the gateway takes to
# rebuild after one document changed and what the slowest request meanwhile took, and how many
# calls to the manager requests cause (none). Bars are printed beside each figure.
# DOCUMENTS (1000) of 100 keys each; ROTATIONS (5); PROFILE (release), or CLAVIGER, a program.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
trap 'stop_all; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

DOCUMENTS=${DOCUMENTS:-1000} ROTATIONS=${ROTATIONS:-5} TTL=${TTL:-10}
# The server takes the port behind its own, too.
BAO_PORT=18210 UPSTREAM=127.0.0.1:18213
dir=$(mktemp -d /tmp/claviger-secrets.XXXXXX)
consumers=$((DOCUMENTS * 100))

scripts/setup.sh build bench test
say "Building"
claviger=${CLAVIGER:-$(build_program "${PROFILE:-release}")}
PATH="$PWD/.venv/bin:$PATH"

rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
now_ms() { date +%s%3N; }
tool() { python3 scripts/bench-secrets.py --bao "http://127.0.0.1:$BAO_PORT" "$@"; }
# row WHAT FIGURE UNIT BAR: the bar is shown, and whether it is met.
row() {
    awk -v what="$1" -v figure="$2" -v unit="$3" -v bar="$4" 'BEGIN {
        printf "%-52s %10s %-6s bar %6s  %s\n", what, figure, unit, bar, figure <= bar ? "met" : "MISSED" }'
}
# gateway NAME PORT DOCUMENTS TTL: starts one; sets pid and took (ms until ready).
gateway() {
    local out=$dir/$1 began
    tool write "$out" --port "$2" --documents "$3" --upstream $UPSTREAM --ttl "$4"
    began=$(now_ms)
    start "$out/output.log" "$claviger" run --config "$out/config.yaml" --resources "$out/apisix.yaml"
    pid=$(last_pid)
    wait_for_url "http://127.0.0.1:$(($2 + 1))/status/ready" "$pid" "$out/output.log" 120
    took=$(($(now_ms) - began))
}
# fetches PORT: calls to the manager so far.
fetches() {
    curl -fsS --noproxy '*' "http://127.0.0.1:$(($1 + 2))/apisix/prometheus/metrics" |
        awk '/^claviger_secret_fetches_total/ { sum += $NF } END { print sum + 0 }'
}
# slowest PORT KEY SECONDS: load on 8 connections; prints the longest request in ms.
slowest() {
    wrk -t1 -c8 -d"$3"s --latency -H "apikey: $2" "http://127.0.0.1:$1/" >"$dir/wrk.out"
    if grep -q 'Non-2xx' "$dir/wrk.out"; then
        cat "$dir/wrk.out" "$dir/upstream.log" "$dir"/*/error.log | tail -n 30 >&2
        fail "requests were refused: $(status_of -H "apikey: $2" "http://127.0.0.1:$1/")"
    fi
    awk '/^    Latency/ { v = $4
        if (v ~ /us$/) print v / 1000; else if (v ~ /ms$/) print v + 0; else print v * 1000 }' \
        "$dir/wrk.out"
}

say "Filling OpenBao: $DOCUMENTS documents of 100 keys"
export BAO_TOKEN=root-token-of-a-bench
HOME=$dir start "$dir/bao.log" bao server -dev -dev-no-store-token \
    -dev-root-token-id=$BAO_TOKEN -dev-listen-address=127.0.0.1:$BAO_PORT
wait_for_url "http://127.0.0.1:$BAO_PORT/v1/sys/health" "$(last_pid)" "$dir/bao.log"
start "$dir/upstream.log" "$claviger" echo --listen $UPSTREAM
tool fill --documents "$DOCUMENTS"

say "Loading"
gateway few 18220 1 300
# Serving takes memory too: both have answered the same requests when they are looked at.
slowest 18220 "$(tool key 47)" 4 >/dev/null
few_kib=$(rss_kib "$pid")
stop "$pid"
gateway steady 18230 "$DOCUMENTS" 300
steady=$pid
row "$consumers consumers: from start to ready" "$took" ms 15000

say "Requests and the manager"
before=$(fetches 18230)
slowest 18230 "$(tool key 47)" 4 >/dev/null
requests=$(awk '/requests in/ { print $1 }' "$dir/wrk.out")
row "calls to the manager during $requests requests" "$(($(fetches 18230) - before))" calls 0
# Not sooner: by now the allocator has given back what loading alone needed.
kib=$(rss_kib "$steady")
row "memory of each, beyond a gateway of 100" "$(((kib - few_kib) * 1024 / (consumers - 100)))" bytes 1536
stop "$steady"

say "Rotating one document of 100 keys, $ROTATIONS times; ttl $TTL s"
gateway rotating 18240 "$DOCUMENTS" "$TTL"
rotating=$pid
key=$(tool key 47)
quiet=$(slowest 18240 "$key" 4)
worst=0
for ((generation = 1; generation <= ROTATIONS; generation++)); do
    slowest 18240 "$key" $((TTL + 2)) >"$dir/slowest" &
    load=$!
    in_force=$(tool rotate --port 18240 --generation "$generation")
    wait "$load"
    took=$(grep -o 'trigger=Secrets.*took=[0-9.]*' "$dir/rotating/error.log" | tail -n 1)
    took=${took##*=}
    row "rebuild $generation (in force after $in_force s)" "$took" ms 20
    echo "    slowest request of the whole time: $(cat "$dir/slowest") ms (without a rotation: $quiet ms)"
done
row "memory of each after the rotations" \
    "$((($(rss_kib "$rotating") - few_kib) * 1024 / (consumers - 100)))" bytes 1536
