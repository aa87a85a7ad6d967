#!/usr/bin/env bash
# audit.sh: testssl and sslyze against the real program, twice: `default` as `claviger quickstart`
# sets it up, and `wide` with an RSA certificate beside the ECDSA one and a name for clients that
# send none, so that every suite and every check comes to a handshake. What they find above "info"
# must be explained in docs/tls-audit.md. Takes some three minutes. OUT names a folder for the
# reports; RUNS=default or wide does one; PROFILE=quick or release, or CLAVIGER, a program.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
trap 'stop_all; [[ -n ${OUT:-} ]] || rm -rf "$dir"' EXIT
trap 'exit 130' INT TERM

scripts/setup.sh build test audit
PATH="$PWD/.venv/bin:$PATH"
say "Building"
claviger=${CLAVIGER:-$(build_program "${PROFILE:-dev}")}
mkdir -p "${OUT:-/tmp}"
dir=${OUT:-$(mktemp -d /tmp/claviger-audit.XXXXXX)}
HOST=quickstart.claviger.test

# rsa_pair FOLDER: a certificate of another authority for the same name, as quickstart makes none.
rsa_pair() {
    openssl req -x509 -nodes -newkey rsa:2048 -days 3650 -subj "/CN=Audit CA" \
        -addext keyUsage=critical,keyCertSign,cRLSign -keyout "$1/rsa-ca.key" -out "$1/rsa-ca.pem" 2>/dev/null
    openssl req -x509 -nodes -newkey rsa:2048 -days 90 -subj "/CN=$HOST" \
        -CA "$1/rsa-ca.pem" -CAkey "$1/rsa-ca.key" -addext "subjectAltName=DNS:$HOST" \
        -addext basicConstraints=critical,CA:FALSE -addext keyUsage=critical,digitalSignature \
        -addext extendedKeyUsage=serverAuth \
        -keyout "$1/secrets/rsa.key" -out "$1/secrets/rsa.crt" 2>/dev/null
    chmod 600 "$1"/secrets/rsa.*
    cat "$1/rsa-ca.pem" >>"$1/ca.pem"
}

# audit RUN PORT: a gateway of quickstart's, on ports counted from PORT, and both tools on it.
audit() {
    local run=$1 port=$2 folder=$dir/$1 url=https://$HOST:$2 outcome=0
    "$claviger" quickstart --force "$folder" >/dev/null
    sed -i "s/port: 9443/port: $port/; s/port: 9080/port: $((port + 1))/
        s/port: 7085/port: $((port + 2))/; s/port: 9091/port: $((port + 3))/" "$folder/config.yaml"
    sed -i "s/127.0.0.1:1980/127.0.0.1:$((port + 4))/" "$folder/apisix.yaml"
    if [[ $run == wide ]]; then
        rsa_pair "$folder"
        sed -i "/^  ssl:/a\\    fallback_sni: $HOST" "$folder/config.yaml"
        sed -i "/key: \$secret:..file.main.tls.key/a\\    certs: [\$secret://file/main/rsa.crt]\n\
    keys: [\$secret://file/main/rsa.key]" "$folder/apisix.yaml"
    fi
    start "$folder/echo.log" "$claviger" echo --listen "127.0.0.1:$((port + 4))"
    start "$folder/output.log" \
        "$claviger" run --config "$folder/config.yaml" --resources "$folder/apisix.yaml"
    wait_for_url "http://127.0.0.1:$((port + 2))/status/ready" "$(last_pid)" "$folder/output.log"

    say "$run: sslyze"
    local sslyze=(sslyze --sni "$HOST" --certinfo_ca_file "$folder/ca.pem" --resum --early_data
        --http_headers "127.0.0.1:$port")
    # Exit status 1 only says that a configuration of Mozilla's is not met.
    "${sslyze[@]}" --mozilla_config modern >"$folder/modern.txt" 2>&1 || true
    "${sslyze[@]}" --mozilla_config intermediate --json_out "$folder/sslyze.json" \
        >"$folder/intermediate.txt" 2>&1 || true
    [[ -s $folder/sslyze.json ]] || { cat "$folder/intermediate.txt"; fail "sslyze did not end"; }
    say "$run: testssl"
    rm -f "$folder/testssl.json"
    # Its exit status counts findings.
    testssl --quiet --color 0 --warnings off --nodns none --ip 127.0.0.1 --add-ca "$folder/ca.pem" \
        --jsonfile "$folder/testssl.json" "$url" >"$folder/testssl.txt" 2>&1 </dev/null || true
    [[ -s $folder/testssl.json ]] || { cat "$folder/testssl.txt"; fail "testssl did not end"; }

    say "$run: findings"
    python3 scripts/audit.py "$run" --testssl "$folder/testssl.json" --sslyze "$folder/sslyze.json" \
        --mozilla "modern=$folder/modern.txt" --mozilla "intermediate=$folder/intermediate.txt" ||
        outcome=1
    stop_all
    return $outcome
}

outcome=0
for run in ${RUNS:-default wide}; do
    audit "$run" 18600 || outcome=1
done
[[ $outcome == 0 ]] || fail "findings and docs/tls-audit.md do not agree"
say "Every finding is explained in docs/tls-audit.md"
