#!/usr/bin/env bash
# run.sh [--check]: a working gateway on this machine, without a secret manager to install.
# --check tries the three curl lines and stops. PROFILE=quick or release builds a faster one.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
trap stop_all EXIT
trap 'exit 0' INT TERM

scripts/setup.sh build
say "Building"
claviger=$(build_program "${PROFILE:-dev}")

dir=$PWD/.quickstart
if [[ ! -e $dir/config.yaml ]]; then
    say "Writing $dir"
    "$claviger" quickstart "$dir" >/dev/null
fi
"$claviger" check --config "$dir/config.yaml" --resources "$dir/apisix.yaml" --resolve

say "Starting the upstream and the gateway"
start "$dir/logs/echo.log" "$claviger" echo --listen 127.0.0.1:1980
start "$dir/logs/output.log" \
    "$claviger" run --config "$dir/config.yaml" --resources "$dir/apisix.yaml"
gateway=$(last_pid)
wait_for_url http://127.0.0.1:7085/status/ready "$gateway" "$dir/logs/output.log"

# README.txt, written by quickstart, ends with the lines to try.
lines=$(sed '1,/^Try it/d' "$dir/README.txt")
if [[ ${1:-} == --check ]]; then
    mapfile -t tries <<<"$lines"
    for i in 0 1 2; do
        answer=$(bash -c "${tries[i]}") || fail "this line failed: ${tries[i]}"
        case $i in
            0) grep -q -- '-> 401$' <<<"$answer" ;;
            1) grep -q -- '-> 200$' <<<"$answer" ;;
            2) grep -q '^apisix_http_status{' <<<"$answer" ;;
        esac || fail "line $((i + 1)) answered: $answer"
    done
    say "All three lines work"
    exit 0
fi

say "Try it from another terminal: 401 without a key, 200 with it, metrics"
printf '%s\n\n' "$lines"
echo "Change $dir/apisix.yaml and watch it follow. Ctrl-C stops both."
wait "$gateway" || { tail -n 30 "$dir/logs/output.log" >&2; fail "the gateway ended"; }
