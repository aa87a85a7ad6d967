#!/usr/bin/env bash
# bench.sh: CPU time per request and throughput of claviger beside bare Pingora and nginx, each on
# one worker, in one run; then memory, start time and the time until a changed route is in force.
# CPU time is the measure (design §5): wall-clock figures of a shared machine are only shown.
# ROUNDS (3) rounds of SECS (4) seconds; the best round of each counts.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/proxylib.sh
prepare bench
bare=$(build_program "${PROFILE:-release}" bare)

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

say "Starting"
start_nginx upstream 18001
start_nginx proxy 18002
add nginx "$(last_pid)" 18002 10000 -

start "$dir/bare.log" "$bare" 127.0.0.1:18003 127.0.0.1:18001
wait_for_url http://127.0.0.1:18003/ "$(last_pid)" "$dir/bare.log"
add bare "$(last_pid)" 18003 10000 -

gateway small 18010 --routes 10 --consumers 10
idle_kib=$(rss_kib "$pid")
add "10 routes" "$pid" 18010 10 -
gateway large 18020 --routes 10000 --consumers 10
add "10 000 routes" "$pid" 18020 10000 -
gateway few 18030 --routes 10000 --consumers 10 --auth key-auth
few_kib=$(rss_kib "$pid")
add "key-auth, 10 consumers" "$pid" 18030 10000 "$dir/few/keys.txt"
gateway many 18040 --routes 10000 --consumers 100000 --auth key-auth
many_kib=$(rss_kib "$pid") many_ms=$took
add "key-auth, 100 000 consumers" "$pid" 18040 10000 "$dir/many/keys.txt"

ORDER=(bare nginx "10 routes" "10 000 routes" "key-auth, 10 consumers" "key-auth, 100 000 consumers")
say "Proxying a small response: $ROUNDS rounds of $SECS s, $CONNECTIONS connections, one worker"
measure_all "${ORDER[@]}"
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
start_nginx upstream 18001
gateway file 18050 --routes 10000 --consumers 10000
echo "start, 10 000 routes and 10 000 consumers: $took ms"
echo "one changed route, one file of $(du -k "$dir/file/apisix.yaml" | cut -f1) KiB:" \
    "$(in_force file 18050 --routes 10000 --consumers 10000) ms"
gateway folder 18060 --routes 10000 --consumers 10000 --folder
echo "one changed route, folder of small files:" \
    "$(in_force folder 18060 --routes 10000 --consumers 10000 --folder) ms"
