#!/usr/bin/env bash
# bench.sh: CPU time per request and throughput of claviger beside bare Pingora and nginx, each on
# one worker, in one run; then memory, start time and the time until a changed route is in force.
# CPU time is the measure (design §5): wall-clock figures of a shared machine are only shown.
# ROUNDS (3) rounds of SECS (4) seconds; the best round of each counts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
STOP_SIGNAL=INT
trap 'stop_all; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

ROUNDS=${ROUNDS:-3} SECS=${SECS:-4} CONNECTIONS=${CONNECTIONS:-64}
dir=$(mktemp -d /tmp/claviger-bench.XXXXXX)

scripts/setup.sh build bench test
say "Building (release: the link takes a minute or two)"
claviger=$(build_program "${PROFILE:-release}")
bare=$(build_program "${PROFILE:-release}" bare)

# cpu_ticks PID: user and system time so far, in clock ticks.
cpu_ticks() {
    local stat
    stat=$(<"/proc/$1/stat")
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- $stat
    echo $((${12} + ${13}))
}

rss_kib() { awk '/^VmRSS/ { print $2 }' "/proc/$1/status"; }
now_ms() { date +%s%3N; }

# gateway NAME PORT ARGUMENTS...: writes a configuration and starts it; sets pid and took (ms).
gateway() {
    local name=$1 port=$2 resources=$dir/$1/apisix.yaml began
    shift 2
    python3 scripts/bench-config.py "$dir/$name" --port "$port" "$@"
    [[ -e $resources ]] || resources=$dir/$name/resources
    began=$(now_ms)
    start "$dir/$name/output.log" \
        "$claviger" run --config "$dir/$name/config.yaml" --resources "$resources"
    pid=$(last_pid)
    wait_for_url "http://127.0.0.1:$((port + 1))/status/ready" "$pid" "$dir/$name/output.log" 60
    took=$(($(now_ms) - began))
}

# in_force NAME PORT ARGUMENTS...: ms from changing one route until a request finds it.
in_force() {
    local name=$1 port=$2 began host=changed-$RANDOM.bench.test
    shift 2
    python3 scripts/bench-config.py "$dir/$name" --port "$port" --change "$host" "$@"
    began=$(now_ms)
    until [[ $(status_of -H "Host: $host" "http://127.0.0.1:$port/") == 200 ]]; do
        (($(now_ms) - began < 30000)) || fail "$name: the changed route is not in force after 30 s"
    done
    echo $(($(now_ms) - began))
}

nginx_config() { # KIND PORT
    cat <<CONF
daemon off; master_process off; worker_processes 1; pid $dir/nginx-$1.pid;
error_log $dir/nginx-$1.log warn;
events { worker_connections 4096; }
http {
    client_body_temp_path $dir/tmp; proxy_temp_path $dir/tmp; fastcgi_temp_path $dir/tmp;
    uwsgi_temp_path $dir/tmp; scgi_temp_path $dir/tmp;
    keepalive_requests 1000000000; keepalive_timeout 600s;
CONF
    if [[ $1 == upstream ]]; then
        cat <<CONF
    access_log off;
    server { listen 127.0.0.1:$2; location / { return 200 "hello from upstream\n"; } }
}
CONF
    else
        cat <<CONF
    access_log $dir/nginx-access.log combined buffer=16k flush=3s;
    upstream app { server 127.0.0.1:18001; keepalive 128; keepalive_requests 1000000000; }
    server {
        listen 127.0.0.1:$2;
        location / { proxy_pass http://app; proxy_http_version 1.1;
                     proxy_set_header Connection ""; proxy_set_header Host \$host; }
    }
}
CONF
    fi
}

say "Starting"
mkdir "$dir/tmp"
for kind in upstream:18001 proxy:18002; do
    nginx_config "${kind%:*}" "${kind#*:}" >"$dir/nginx-${kind%:*}.conf"
    start "$dir/nginx-${kind%:*}.out" nginx -c "$dir/nginx-${kind%:*}.conf"
    wait_for_url "http://127.0.0.1:${kind#*:}/" "$(last_pid)" "$dir/nginx-${kind%:*}.out"
done
declare -A PID PORT ROUTES KEYS BEST RATE
add() { PID[$1]=$2 PORT[$1]=$3 ROUTES[$1]=$4 KEYS[$1]=$5; }
add nginx "$(last_pid)" 18002 10000 -

start "$dir/bare.log" "$bare" 127.0.0.1:18003 127.0.0.1:18001
wait_for_url http://127.0.0.1:18003/ "$(last_pid)" "$dir/bare.log"
add bare "$(last_pid)" 18003 10000 -

gateway small 18010 --routes 10 --consumers 10
idle_kib=$(rss_kib "$pid")
add "10 routes" "$pid" 18010 10 -
gateway large 18020 --routes 10000 --consumers 10
add "10 000 routes" "$pid" 18020 10000 -
gateway few 18030 --routes 10000 --consumers 10 --auth
few_kib=$(rss_kib "$pid")
add "key-auth, 10 consumers" "$pid" 18030 10000 "$dir/few/keys.txt"
gateway many 18040 --routes 10000 --consumers 100000 --auth
many_kib=$(rss_kib "$pid") many_ms=$took
add "key-auth, 100 000 consumers" "$pid" 18040 10000 "$dir/many/keys.txt"

ORDER=(bare nginx "10 routes" "10 000 routes" "key-auth, 10 consumers" "key-auth, 100 000 consumers")
HZ=$(getconf CLK_TCK)

# measure NAME: one round; keeps the lowest CPU time per request (ns) and its rate.
measure() {
    local before after out requests ns rate
    before=$(cpu_ticks "${PID[$1]}")
    out=$(wrk -t1 -c"$CONNECTIONS" -d"${SECS}s" -s scripts/bench.lua \
        "http://127.0.0.1:${PORT[$1]}/" -- "${ROUTES[$1]}" "${KEYS[$1]}")
    after=$(cpu_ticks "${PID[$1]}")
    ! grep -q 'Non-2xx' <<<"$out" || fail "$1 refused requests: $out"
    requests=$(awk '/requests in/ { print $1 }' <<<"$out")
    rate=$(awk '/^Requests\/sec/ { printf "%d", $2 }' <<<"$out")
    ((requests > 0)) || fail "$1 answered nothing: $out"
    ns=$(((after - before) * 1000000000 / HZ / requests))
    if [[ -z ${BEST[$1]:-} ]] || ((ns < BEST[$1])); then
        BEST[$1]=$ns RATE[$1]=$rate
    fi
}

say "Proxying a small response: $ROUNDS rounds of $SECS s, $CONNECTIONS connections, one worker"
for ((round = 0; round < ROUNDS; round++)); do
    for name in "${ORDER[@]}"; do measure "$name"; done
done
printf '%-30s %14s %9s %12s %9s\n' "" "CPU/request" "to bare" "requests/s" "to bare"
for name in "${ORDER[@]}"; do
    awk -v name="$name" -v ns="${BEST[$name]}" -v bare="${BEST[bare]}" -v rate="${RATE[$name]}" \
        -v bare_rate="${RATE[bare]}" 'BEGIN {
            printf "%-30s %11.1f us %9.2f %12d %9.2f\n",
                name, ns / 1000, ns / bare, rate, rate / bare_rate }'
done
awk -v many="${BEST[key-auth, 100 000 consumers]}" -v few="${BEST[key-auth, 10 consumers]}" \
    'BEGIN { printf "100 000 consumers to 10: %.3f\n", many / few }'

say "Memory, start, change"
echo "idle, 10 routes: $((idle_kib / 1024)) MiB"
echo "a consumer beyond the first ten: $(((many_kib - few_kib) * 1024 / 99990)) bytes"
echo "start, 10 000 routes and 100 000 consumers: $many_ms ms"
stop_all
nginx_upstream="$dir/nginx-upstream.conf"
start "$dir/nginx-upstream.out" nginx -c "$nginx_upstream"
gateway file 18050 --routes 10000 --consumers 10000
echo "start, 10 000 routes and 10 000 consumers: $took ms"
echo "one changed route, one file of $(du -k "$dir/file/apisix.yaml" | cut -f1) KiB:" \
    "$(in_force file 18050 --routes 10000 --consumers 10000) ms"
gateway folder 18060 --routes 10000 --consumers 10000 --folder
echo "one changed route, folder of small files:" \
    "$(in_force folder 18060 --routes 10000 --consumers 10000 --folder) ms"
