#!/usr/bin/env bash
# bench-count.sh: instructions per request under callgrind, claviger beside bare Pingora. Counted
# as the difference of two runs with a fixed number of requests each, so that the start cancels
# out. Steady on a busy machine, where times are not. SYMBOLS=1 keeps symbols and the files, so
# that callgrind_annotate shows where the instructions go. CLAVIGER and BARE name programs that are
# built already; ONLY, a pattern, picks cases.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
STOP_SIGNAL=INT
dir=$(mktemp -d /tmp/claviger-count.XXXXXX)
trap 'stop_all; [[ ${SYMBOLS:-} == 1 ]] || rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

FEW=${FEW:-500} MANY=${MANY:-2500}

scripts/setup.sh build bench test count
if [[ ${SYMBOLS:-} == 1 ]]; then
    export CARGO_PROFILE_RELEASE_STRIP=none CARGO_PROFILE_RELEASE_DEBUG=line-tables-only
fi
say "Building (release)"
claviger=${CLAVIGER:-$(build_program "${PROFILE:-release}")}
bare=${BARE:-$(build_program "${PROFILE:-release}" bare)}

cat >"$dir/nginx.conf" <<CONF
daemon off; master_process off; pid $dir/nginx.pid; error_log $dir/nginx.log warn;
events {}
http {
    client_body_temp_path $dir/tmp; proxy_temp_path $dir/tmp; fastcgi_temp_path $dir/tmp;
    uwsgi_temp_path $dir/tmp; scgi_temp_path $dir/tmp;
    access_log off; keepalive_requests 1000000000;
    server { listen 127.0.0.1:18001; location / { return 200 "hello from upstream\n"; } }
}
CONF
start "$dir/nginx.out" nginx -c "$dir/nginx.conf"
wait_for_url http://127.0.0.1:18001/ "$(last_pid)" "$dir/nginx.out"

# count REQUESTS PORT READY-URL NAME HEADER COMMAND...: sets total, the instructions of the run.
count() {
    local requests=$1 port=$2 ready=$3 name=$4 header=$5 pid log
    shift 5
    log=$dir/$name-$requests.log
    start "$log" valgrind --tool=callgrind \
        --callgrind-out-file="$dir/callgrind.$name.$requests" "$@"
    pid=$(last_pid)
    wait_for_url "$ready" "$pid" "$log" 120
    # Under valgrind the listeners may open a moment after readiness.
    curl -fsS -o /dev/null --noproxy '*' --retry 20 --retry-delay 1 --retry-connrefused \
        -H 'Host: r7.bench.test' -H "$header" "http://127.0.0.1:$port/" ||
        fail "$name does not answer"
    curl -fsS -o /dev/null --noproxy '*' -H 'Host: r7.bench.test' -H "$header" \
        "http://127.0.0.1:$port/[1-$requests]" || fail "$name refused requests"
    stop "$pid"
    total=$(awk '/Collected/ { print $NF }' "$log")
    [[ -n $total ]] || fail "$name was not counted: see $log"
}

# per_request NAME PORT READY-URL HEADER COMMAND...: sets ir.
per_request() {
    local name=$1 port=$2 ready=$3 header=$4 few
    shift 4
    count "$FEW" "$port" "$ready" "$name" "$header" "$@"
    few=$total
    count "$MANY" "$port" "$ready" "$name" "$header" "$@"
    ir=$(((total - few) / (MANY - FEW)))
}

# row NAME: beside bare, and beside the same proxying without authentication.
row() {
    awk -v n="$1" -v ir="$ir" -v bare="$bare_ir" -v open="${open_ir:-$ir}" \
        'BEGIN { printf "%-30s %9d %8.2f %8.3f\n", n, ir, ir / bare, ir / open }'
}

say "Instructions per request, to bare, and to no authentication"
per_request bare 18003 http://127.0.0.1:18003/ 'X-A: b' "$bare" 127.0.0.1:18003 127.0.0.1:18001
bare_ir=$ir
row bare
# NAME PORT HEADER CONSUMERS GENERATOR-ARGUMENTS. valgrind's processor has no instructions for SHA,
# so that signatures count for more here than on a machine.
CASES=(
    "open 18020 apikey 10"
    "key-auth 18030 apikey 10 --auth key-auth"
    "key-auth-1000 18040 apikey 1000 --auth key-auth"
    "hs256-remembered 18050 authorization 10 --auth jwt-hs256"
    "hs256 18060 authorization 10 --auth jwt-hs256 --forget"
    "rs256-remembered 18070 authorization 10 --auth jwt-rs256"
)
for case in "${CASES[@]}"; do
    read -r name port header consumers arguments <<<"$case"
    [[ $name =~ ${ONLY:-.} ]] || continue
    # shellcheck disable=SC2086
    python3 scripts/bench-config.py "$dir/$name" --port "$port" --routes 1000 \
        --consumers "$consumers" $arguments
    key=$(head -n 1 "$dir/$name/keys.txt")
    per_request "$name" "$port" "http://127.0.0.1:$((port + 1))/status/ready" "$header: $key" \
        "$claviger" run --config "$dir/$name/config.yaml" --resources "$dir/$name/apisix.yaml"
    [[ $name != open ]] || open_ir=$ir
    row "$name"
done
[[ ${SYMBOLS:-} != 1 ]] || echo "callgrind_annotate $dir/callgrind.NAME.$MANY"
