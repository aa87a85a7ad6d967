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
prepare auth

say "Starting"
start_nginx upstream 18001
# case_of NAME PORT HEADER GENERATOR-ARGUMENTS...: a gateway and requests with its credentials.
case_of() {
    local name=$1 port=$2 header=$3 folder=${1//[^A-Za-z0-9]/-}
    shift 3
    gateway "$folder" "$port" --routes 10 "$@"
    add "$name" "$pid" "$port" 10 "$dir/$folder/keys.txt" "$header"
}
# open_to NAME: the very requests of that case, sent through the gateway without authentication.
open_to() { add "no auth: $1" "${PID[no auth]}" 18010 10 "${KEYS[$1]}" "${HEADER[$1]}"; }

case_of "no auth" 18010 apikey --consumers 10
case_of "key-auth, 10 consumers" 18015 apikey --consumers 10 --auth key-auth
case_of "key-auth, 100 000 consumers" 18020 apikey --consumers 100000 --auth key-auth
case_of "HS256" 18025 authorization --consumers 200 --auth jwt-hs256 --forget
case_of "HS256, remembered" 18030 authorization --consumers 200 --auth jwt-hs256
case_of "RS256" 18035 authorization --consumers 200 --auth jwt-rs256 --forget
case_of "RS256, remembered" 18040 authorization --consumers 200 --auth jwt-rs256
wrong="wrong keys, 100 000 consumers"
add "$wrong" "${PID[key-auth, 100 000 consumers]}" 18020 10 \
    "$dir/key-auth--100-000-consumers/wrong.txt" apikey
REFUSED[$wrong]=1
open_to "key-auth, 10 consumers"
open_to "key-auth, 100 000 consumers"
open_to "HS256"
open_to "RS256"

# Each beside what it is compared with.
ORDER=("no auth: key-auth, 10 consumers" "key-auth, 10 consumers"
    "no auth: key-auth, 100 000 consumers" "key-auth, 100 000 consumers" "$wrong"
    "no auth: HS256" "HS256" "HS256, remembered" "no auth: RS256" "RS256" "RS256, remembered")
say "Proxying a small response: $ROUNDS rounds of $SECS s, $CONNECTIONS connections, one worker"
measure_all "${ORDER[@]}"

# One RSA verification on this machine, as the program's own OpenSSL would need it.
verify_ns=$(openssl speed -seconds 2 rsa2048 2>/dev/null |
    awk '/^rsa *2048/ { printf "%d", 1000000000 / $NF }')
over() { awk -v ns="$1" -v open="$2" 'BEGIN { print ns / open }'; }
row() { # NAME OPEN BAR: CPU time, its ratio to OPEN's, and the bar of that ratio
    awk -v name="$1" -v ns="${BEST[$1]}" -v open="${BEST[$2]}" -v bar="$3" 'BEGIN {
        printf "%-32s %11.1f us %9.3f   bar %.3f  %s\n",
            name, ns / 1000, ns / open, bar, ns / open <= bar ? "met" : "MISSED" }'
}
printf '%-32s %14s %9s\n' "" "CPU/request" "to none"
few="key-auth, 10 consumers" many="key-auth, 100 000 consumers"
row "$few" "no auth: $few" 1.04
row "$many" "no auth: $many" 1.04
row "$wrong" "$many" 1
row "HS256" "no auth: HS256" 1.12
row "HS256, remembered" "no auth: HS256" 1.05
open=${BEST[no auth: RS256]}
row "RS256" "no auth: RS256" "$(over $((open + verify_ns + 5000)) "$open")"
row "RS256, remembered" "no auth: RS256" 1.05
echo "100 000 consumers to 10: $(over "${BEST[$many]}" "${BEST[$few]}")"
