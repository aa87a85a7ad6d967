# Shared by the benches that measure proxied requests; sourced after lib.sh.
# shellcheck shell=bash disable=SC2154
STOP_SIGNAL=INT
ROUNDS=${ROUNDS:-3} SECS=${SECS:-4} CONNECTIONS=${CONNECTIONS:-64}

# prepare NAME: what each needs before it starts anything: a folder ($dir), which goes at the end
# with all that was started, and the program ($claviger: built, or given as CLAVIGER).
prepare() {
    trap 'stop_all; rm -rf "$dir"' EXIT
    trap 'exit 130' INT TERM
    dir=$(mktemp -d "/tmp/claviger-$1.XXXXXX")
    scripts/setup.sh build bench test
    say "Building (release: the link takes a minute or two)"
    claviger=${CLAVIGER:-$(build_program "${PROFILE:-release}")}
}

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

# gateway NAME PORT ARGUMENTS...: writes a configuration (GENERATOR, else bench-config.py) and starts
# it; sets pid and took (ms).
gateway() {
    local name=$1 port=$2 resources=$dir/$1/apisix.yaml began
    shift 2
    python3 "${GENERATOR:-scripts/bench-config.py}" "$dir/$name" --port "$port" "$@"
    [[ -e $resources ]] || resources=$dir/$name/resources
    began=$(now_ms)
    start "$dir/$name/output.log" \
        "$claviger" run --config "$dir/$name/config.yaml" --resources "$resources"
    pid=$(last_pid)
    wait_for_url "http://127.0.0.1:$((port + 1))/status/ready" "$pid" "$dir/$name/output.log" 60
    took=$(($(now_ms) - began))
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

# start_nginx upstream|proxy PORT
start_nginx() {
    mkdir -p "$dir/tmp"
    nginx_config "$1" "$2" >"$dir/nginx-$1.conf"
    start "$dir/nginx-$1.out" nginx -c "$dir/nginx-$1.conf"
    wait_for_url "http://127.0.0.1:$2/" "$(last_pid)" "$dir/nginx-$1.out"
}

# What is measured, by name. Where REFUSED is set, every request must be.
declare -A PID PORT ROUTES KEYS HEADER REFUSED BEST RATE
# add NAME PID PORT ROUTES KEYS-FILE [HEADER]
add() { PID[$1]=$2 PORT[$1]=$3 ROUTES[$1]=$4 KEYS[$1]=$5 HEADER[$1]=${6:-apikey}; }

HZ=$(getconf CLK_TCK)

# measure NAME: one round; keeps the lowest CPU time per request (ns) and its rate.
measure() {
    local before after out requests ns rate
    before=$(cpu_ticks "${PID[$1]}")
    out=$(wrk -t1 -c"$CONNECTIONS" -d"${SECS}s" -s scripts/bench.lua \
        "http://127.0.0.1:${PORT[$1]}/" -- "${ROUTES[$1]}" "${KEYS[$1]}" "${HEADER[$1]}")
    after=$(cpu_ticks "${PID[$1]}")
    if [[ -n ${REFUSED[$1]:-} ]]; then
        grep -q 'Non-2xx' <<<"$out" || fail "$1 let requests pass: $out"
    else
        ! grep -q 'Non-2xx' <<<"$out" || fail "$1 refused requests: $out"
    fi
    requests=$(awk '/requests in/ { print $1 }' <<<"$out")
    rate=$(awk '/^Requests\/sec/ { printf "%d", $2 }' <<<"$out")
    ((requests > 0)) || fail "$1 answered nothing: $out"
    ns=$(((after - before) * 1000000000 / HZ / requests))
    if [[ -z ${BEST[$1]:-} ]] || ((ns < BEST[$1])); then
        BEST[$1]=$ns RATE[$1]=$rate
    fi
}

# measure_all NAME...: in turns, so that a busy minute meets all of them.
measure_all() {
    local round name
    for ((round = 0; round < ROUNDS; round++)); do
        for name in "$@"; do measure "$name"; done
    done
}
