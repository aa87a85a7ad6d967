#!/usr/bin/env bash
# bench-tls.sh: CPU time of a TLS handshake of claviger among NAMES (10 000) names with a certificate
# each, beside bare Pingora with one static certificate, ECDSA and RSA, full and resumed; then how
# long claviger takes to start with so many, and what each costs in memory. Bars stand beside.
# Each is measured ROUNDS (7) times, claviger and bare in turns, COUNT (1500) connections a time;
# the median of the ratios counts. PROFILE (release), or CLAVIGER, BARE and LOAD, programs.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
. scripts/proxylib.sh
NAMES=${NAMES:-10000} ROUNDS=${ROUNDS_TLS:-7} COUNT=${COUNT:-1500}
# Of the sessions that resume: each name is connected to once before.
FEW_NAMES=${FEW_NAMES:-300}
prepare tls
bare=${BARE:-$(build_program "${PROFILE:-release}" bare)}
load=${LOAD:-$(build_program "${PROFILE:-release}" tls-load)}
PATH="$PWD/.venv/bin:$PATH"
GENERATOR=scripts/bench-certificates.py
missed=0

# pinned PID: on the first core, all of its threads; the load gets the second.
pinned() { [[ $(nproc) == 1 ]] || taskset -acp 0 "$1" >/dev/null; }
on_the_other_core() { if [[ $(nproc) == 1 ]]; then "$@"; else taskset -c 1 "$@"; fi; }

# start_bare NAME PORT FOLDER sessions|tickets: with the first name's pair; sets pid.
start_bare() {
    start "$dir/$1.log" "$bare" "127.0.0.1:$2" 127.0.0.1:18001 "127.0.0.1:$(($2 + 3))" \
        "$3/static.pem" "$3/static.key" "$4"
    pid=$(last_pid)
    wait_for_url "http://127.0.0.1:$2/" "$pid" "$dir/$1.log"
}

# cpu_of PID PORT NAMES-FILE OPTIONS...: sets ns, CPU time of one connection.
cpu_of() {
    local pid=$1 port=$2 names=$3 said
    shift 3
    said=$(on_the_other_core "$load" "127.0.0.1:$((port + 3))" "$names" --pid "$pid" \
        --connections "$COUNT" "$@") || fail "tls-load on port $port: $said"
    ns=${said##*cpu_ns }
}

median() { sort -g | awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'; }

# row WHAT FIGURE UNIT BAR
row() {
    local verdict=met
    awk -v figure="$2" -v bar="$4" 'BEGIN { exit !(figure <= bar) }' || verdict=MISSED missed=1
    printf '%-46s %10s %-6s bar %6s  %s\n' "$1" "$2" "$3" "$4" "$verdict"
}

# beside WHAT BAR CLAVIGER-PID PORT BARE-PID PORT NAMES-FILE OPTIONS...: `-` is no bar.
beside() {
    local what=$1 bar=$2 ours=$3 port=$4 theirs=$5 bare_port=$6 names=$7 round mine ratio
    shift 7
    : >"$dir/ratios" >"$dir/ours" >"$dir/theirs"
    for ((round = 0; round < ROUNDS; round++)); do
        # Who comes first changes, too.
        if ((round % 2)); then
            cpu_of "$theirs" "$bare_port" "$names" "$@"
            echo "$ns" >>"$dir/theirs"
            cpu_of "$ours" "$port" "$names" "$@"
            echo "$ns" >>"$dir/ours"
        else
            cpu_of "$ours" "$port" "$names" "$@"
            echo "$ns" >>"$dir/ours"
            cpu_of "$theirs" "$bare_port" "$names" "$@"
            echo "$ns" >>"$dir/theirs"
        fi
    done
    ratio=$(paste "$dir/ours" "$dir/theirs" | awk '{ printf "%.4f\n", $1 / $2 }' | median)
    mine=$(median <"$dir/ours")
    if [[ $bar == - ]]; then
        printf '%-46s %10s %-6s\n' "$what" "$ratio" x
    else
        row "$what" "$ratio" x "$bar"
    fi
    awk -v ours="$mine" -v theirs="$(median <"$dir/theirs")" \
        'BEGIN { printf "    %.1f us beside %.1f us\n", ours / 1000, theirs / 1000 }'
}

start_nginx upstream 18001
for key in ecdsa rsa; do
    say "$key: $NAMES certificates, $ROUNDS rounds of $COUNT connections"
    gateway few-$key 18510 --key $key --certificates 10
    few=$pid
    gateway many-$key 18520 --key $key --certificates "$NAMES"
    many=$pid many_ms=$took names=$dir/many-$key/names.txt
    gateway tickets-$key 18530 --key $key --certificates "$NAMES" --tickets
    tickets=$pid
    start_bare bare-$key 18540 "$dir/many-$key" sessions
    bare_sessions=$pid
    start_bare bare-tickets-$key 18550 "$dir/tickets-$key" tickets
    bare_tickets=$pid
    for each in "$few" "$many" "$tickets" "$bare_sessions" "$bare_tickets"; do pinned "$each"; done
    head -n "$FEW_NAMES" "$names" >"$dir/few-names.txt"

    # Without requests: TCP, handshake, end. Both resume by cache, or both by ticket.
    beside "$key, TLS 1.3, full" 1.05 "$many" 18520 "$bare_sessions" 18540 "$names"
    beside "$key, TLS 1.2, full" 1.05 "$many" 18520 "$bare_sessions" 18540 "$names" --tls 1.2
    beside "$key, TLS 1.3, full, with tickets" 1.05 "$tickets" 18530 "$bare_tickets" 18550 "$names"
    beside "$key, TLS 1.3, resumed by ticket" 1.05 "$tickets" 18530 "$bare_tickets" 18550 \
        "$dir/few-names.txt" --resume
    beside "$key, TLS 1.2, resumed by ticket" 1.05 "$tickets" 18530 "$bare_tickets" 18550 \
        "$dir/few-names.txt" --resume --tls 1.2
    beside "$key, TLS 1.3, full, and one request" - "$many" 18520 "$bare_sessions" 18540 "$names" \
        --requests 1

    row "start with $NAMES certificates" "$many_ms" ms 5000
    # Both have served handshakes by now, and given back what loading alone needed.
    cpu_of "$few" 18510 "$dir/few-$key/names.txt" --requests 1
    row "memory of each" \
        "$((($(rss_kib "$many") - $(rss_kib "$few")) * 1024 / (NAMES - 10)))" bytes 12288
    for each in "$few" "$many" "$tickets" "$bare_sessions" "$bare_tickets"; do stop "$each"; done
done
[[ $missed == 0 ]] || echo "a bar was missed"
