#!/usr/bin/env bash
# bench-auth.sh: what authentication adds to the CPU time of a proxied request: claviger with an
# auth plugin beside claviger without, same routes, one worker each, in one run. Bars (issue: +4 %
# key-auth, +12 % HS256, RS256 one verification and 5 us, +5 % remembered tokens) stand beside.
# ROUNDS (3) rounds of SECS (4) seconds; the best round of each counts. CLAVIGER names a program
# that is built already.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/proxylib.sh
trap 'stop_all; rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

dir=$(mktemp -d /tmp/claviger-auth.XXXXXX)

scripts/setup.sh build bench test
say "Building (release: the link takes a minute or two)"
claviger=${CLAVIGER:-$(build_program "${PROFILE:-release}")}

say "Starting"
start_nginx upstream 18001
# case NAME PORT HEADER GENERATOR-ARGUMENTS...
case_of() {
    local name=$1 port=$2 header=$3
    shift 3
    gateway "${name//[^a-z0-9]/-}" "$port" --routes 10 "$@"
    add "$name" "$pid" "$port" 10 "$dir/${name//[^a-z0-9]/-}/keys.txt" "$header"
}
case_of "no auth" 18010 apikey --consumers 10
KEYS[no auth]=-
case_of "key-auth, 10 consumers" 18015 apikey --consumers 10 --auth key-auth
case_of "key-auth, 100 000 consumers" 18020 apikey --consumers 100000 --auth key-auth
case_of "HS256" 18025 authorization --consumers 1000 --auth jwt-hs256 --forget
case_of "HS256, remembered" 18030 authorization --consumers 1000 --auth jwt-hs256
case_of "RS256" 18035 authorization --consumers 200 --auth jwt-rs256 --forget
case_of "RS256, remembered" 18040 authorization --consumers 200 --auth jwt-rs256
wrong="wrong keys, 100 000 consumers"
add "$wrong" "${PID[key-auth, 100 000 consumers]}" 18020 10 "$dir/key-auth--100-000-consumers/wrong.txt"
REFUSED[$wrong]=1

ORDER=("no auth" "key-auth, 10 consumers" "key-auth, 100 000 consumers" "$wrong" "HS256"
    "HS256, remembered" "RS256" "RS256, remembered")
say "Proxying a small response: $ROUNDS rounds of $SECS s, $CONNECTIONS connections, one worker"
measure_all "${ORDER[@]}"

# One RSA verification on this machine, as the program's own OpenSSL would need it.
verify_ns=$(openssl speed -seconds 2 rsa2048 2>/dev/null |
    awk '/^rsa *2048/ { printf "%d", 1000000000 / $NF }')
open=${BEST[no auth]}
over() { awk -v ns="$1" -v open="$open" 'BEGIN { print ns / open }'; }
row() { # NAME FACTOR: the bar as a factor of no auth
    awk -v name="$1" -v ns="${BEST[$1]}" -v open="$open" -v bar="$2" 'BEGIN {
        printf "%-30s %11.1f us %9.3f   bar %.3f  %s\n",
            name, ns / 1000, ns / open, bar, ns / open <= bar ? "met" : "MISSED" }'
}
printf '%-30s %14s %9s\n' "" "CPU/request" "to none"
row "no auth" 1
row "key-auth, 10 consumers" 1.04
row "key-auth, 100 000 consumers" 1.04
row "$wrong" "$(over "${BEST[key-auth, 100 000 consumers]}")"
row "HS256" 1.12
row "HS256, remembered" 1.05
row "RS256" "$(over $((open + verify_ns + 5000)))"
row "RS256, remembered" 1.05
awk -v many="${BEST[key-auth, 100 000 consumers]}" -v few="${BEST[key-auth, 10 consumers]}" \
    'BEGIN { printf "100 000 consumers to 10: %.3f\n", many / few }'
