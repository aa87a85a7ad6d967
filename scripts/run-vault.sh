#!/usr/bin/env bash
# run-vault.sh: certificate, key and API key live in OpenBao; the gateway's files hold references.
# Each step prints the command it runs. KEEP=1 leaves everything running until Ctrl-C.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh
trap stop_all EXIT
trap 'exit 0' INT TERM

HOST=vault.claviger.test
BAO_PORT=18200 HTTP=9080 HTTPS=9443 METRICS=9091 STATUS=7085 UPSTREAM=1980

# show COMMAND...: prints it as one could type it, then runs it.
show() {
    printf '  $ %s\n' "$*" >&2
    "$@"
}

scripts/setup.sh build test
say "Building"
claviger=$(build_program "${PROFILE:-dev}")
PATH="$PWD/.venv/bin:$PATH"
dir=$PWD/.vault-demo
rm -rf "$dir"
mkdir -m 700 "$dir"
cd "$dir"

say "1. A secret manager: OpenBao in development mode (everything in its memory)"
root_token=$(openssl rand -hex 16)
export BAO_ADDR=http://127.0.0.1:$BAO_PORT BAO_TOKEN=$root_token HOME=$dir
export VAULT_ADDR=$BAO_ADDR
BAO_DEV_ROOT_TOKEN_ID=$root_token start bao.log \
    bao server -dev -dev-no-store-token -dev-listen-address=127.0.0.1:$BAO_PORT
wait_for_url "$BAO_ADDR/v1/sys/health" "$(last_pid)" bao.log
show bao secrets enable -path=edge -version=2 kv

say "2. A development CA, and a certificate for $HOST"
curve=(-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes)
openssl req -x509 "${curve[@]}" -keyout ca.key -out ca.pem -days 30 \
    -subj "/CN=Claviger demonstration CA" 2>/dev/null
openssl req "${curve[@]}" -keyout tls.key -out tls.csr -subj "/CN=$HOST" 2>/dev/null
printf 'subjectAltName=DNS:%s\n' "$HOST" >san.cnf
openssl x509 -req -in tls.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
    -extfile san.cnf -out tls.crt 2>/dev/null
openssl rand -hex 16 | tr -d '\n' >alice.key

say "3. Certificate, key and API key go into OpenBao; the private key leaves this disk"
show bao kv put edge/tls/demo cert=@tls.crt key=@tls.key >/dev/null
show bao kv put edge/consumers/alice key=@alice.key >/dev/null
rm -f tls.key ca.key tls.csr san.cnf ca.srl

say "4. A token that can only read below edge/"
printf 'path "edge/data/*" { capabilities = ["read"] }\n' >policy.hcl
show bao policy write claviger policy.hcl >/dev/null
VAULT_TOKEN=$(bao token create -policy=claviger -period=1h -field=token)
export VAULT_TOKEN

say "5. The gateway's files: references only"
cat >config.yaml <<YAML
deployment: { role: data_plane, role_data_plane: { config_provider: yaml } }
apisix:
  enable_ipv6: false
  enable_control: false
  node_listen: [{ ip: 127.0.0.1, port: $HTTP }]
  ssl: { enable: true, listen: [{ ip: 127.0.0.1, port: $HTTPS }] }
  status: { ip: 127.0.0.1, port: $STATUS }
nginx_config:
  error_log: $dir/error.log
  http: { access_log: $dir/access.log }
plugin_attr:
  prometheus: { export_addr: { ip: 127.0.0.1, port: $METRICS }, refresh_interval: 1 }
claviger: { pid_file: $dir/claviger.pid, upgrade_sock: $dir/upgrade.sock }
YAML
cat >apisix.yaml <<YAML
secrets:
  - id: vault/main
    uri: $BAO_ADDR
    prefix: edge
    kv_version: 2
    token: \$env://VAULT_TOKEN
    ttl: 2 # seconds a value is fresh; the default is 300
    neg_ttl: 2

ssls:
  - id: demo
    sni: $HOST
    cert: \$secret://vault/main/tls/demo/cert
    key: \$secret://vault/main/tls/demo/key

consumers:
  - username: alice
    plugins:
      key-auth: { key: \$secret://vault/main/consumers/alice/key }

routes:
  - id: demo
    host: $HOST
    uri: /*
    plugins: { key-auth: {}, prometheus: {} }
    upstream: { type: roundrobin, nodes: { "127.0.0.1:$UPSTREAM": 1 } }
#END
YAML
cat apisix.yaml

say "6. Upstream and gateway"
start echo.log "$claviger" echo --listen 127.0.0.1:$UPSTREAM
start output.log "$claviger" run --config "$dir/config.yaml" --resources "$dir/apisix.yaml"
gateway=$(last_pid)
wait_for_url "http://127.0.0.1:$STATUS/status/ready" "$gateway" output.log
url=https://$HOST:$HTTPS/hello
curl_args=(--cacert "$dir/ca.pem" --resolve "$HOST:$HTTPS:127.0.0.1")

# expect STATUS KEY-FILE|- WHAT: one request, and what it must answer.
expect() {
    local header=() got
    [[ $2 == - ]] || header=(-H "apikey: $(cat "$2")")
    got=$(status_of "${curl_args[@]}" "${header[@]}" "$url")
    printf '  %s: %s\n' "$3" "$got"
    [[ $got == "$1" ]] || { tail -n 20 error.log output.log >&2; fail "wanted $1"; }
}
expect 401 - "without a key"
expect 200 alice.key "with alice's key out of OpenBao"

say "7. The key is changed in OpenBao; no file is touched, nothing is reloaded"
cp alice.key old.key
openssl rand -hex 16 | tr -d '\n' >alice.key
show bao kv put edge/consumers/alice key=@alice.key >/dev/null
began=$SECONDS
until [[ $(status_of "${curl_args[@]}" -H "apikey: $(cat alice.key)" "$url") == 200 ]]; do
    ((SECONDS - began < 20)) || fail "the new key is not accepted after 20 s"
    sleep 0.1
done
echo "  the new key works after about $((SECONDS - began)) s (ttl: 2)"
expect 401 old.key "the old key"

say "8. What the metrics say"
curl -sS "http://127.0.0.1:$METRICS/apisix/prometheus/metrics" | grep -E '^claviger_secret' || true

if [[ ${KEEP:-} == 1 ]]; then
    say "Running until Ctrl-C. Try:"
    echo "  export BAO_ADDR=$BAO_ADDR BAO_TOKEN=$root_token"
    echo "  bao kv put edge/consumers/alice key=another-key"
    echo "  curl ${curl_args[*]} -H 'apikey: another-key' $url"
    wait "$gateway"
fi
say "Done; everything is stopped. make clean-run removes $dir"
