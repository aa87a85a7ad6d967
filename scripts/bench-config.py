#!/usr/bin/env python3
"""Writes a gateway's configuration for a measurement: so many routes, so many consumers.

Every credential is a reference into documents of the file manager; route n serves
r<n>.bench.test, consumer n has the key k<n>-..., or signs its tokens with that (jwt-hs256); with
jwt-rs256 all sign with one RSA key.
"""

import argparse
import base64
import hashlib
import hmac
import json
import os
import pathlib
import subprocess

import benchlib


def api_key(n: int) -> str:
    """The key of consumer n: the load generator and the gateway must agree on it."""
    return f"k{n}-" + hashlib.sha256(f"claviger bench {n}".encode()).hexdigest()[:24]


def document(n: int) -> str:
    """The document that holds the key of consumer n; a document may not grow past 2 MiB."""
    return f"keys{n // 10000}"


def token(n: int, algorithm: str, out: pathlib.Path) -> str:
    """A token of consumer n, as a client would send it."""

    def part(octets: bytes) -> str:
        return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()

    header = {"alg": algorithm, "typ": "JWT"}
    claims = {"key": f"c{n}", "exp": 4102444800, "iss": "bench", "sub": f"user-{n}"}
    text = ".".join(part(json.dumps(each, separators=(",", ":")).encode()) for each in (header, claims))
    if algorithm == "HS256":
        signature = hmac.digest(api_key(n).encode(), text.encode(), "sha256")
    else:
        sign = ["openssl", "dgst", "-sha256", "-sign", str(out / "rsa.pem")]
        signature = subprocess.run(sign, input=text.encode(), capture_output=True, check=True).stdout
    return f"Bearer {text}.{part(signature)}"


def credential(n: int, scheme: str | None) -> str:
    reference = f"$secret://file/main/{document(n)}/c{n}"
    if scheme == "jwt-hs256":
        return f"jwt-auth: {{ key: c{n}, secret: {reference} }}"
    if scheme == "jwt-rs256":
        return f"jwt-auth: {{ key: c{n}, algorithm: RS256, public_key: $secret://file/main/rsa/public }}"
    return f"key-auth: {{ key: {reference} }}"


def route(n: int, args: argparse.Namespace, host: str | None = None) -> str:
    plugins = "prometheus: {}"
    if args.auth:
        plugins += f", {args.auth.partition('-')[0]}-auth: {{}}"
    return (
        f"  - id: r{n}\n    host: {host or f'r{n}.bench.test'}\n    uri: /*\n"
        f"    plugins: {{ {plugins} }}\n    upstream_id: app\n"
    )


def common(args: argparse.Namespace, out: pathlib.Path) -> str:
    return (
        f"secrets:\n  - id: file/main\n    path: {json.dumps(str(out / 'secrets'))}\n"
        "upstreams:\n  - id: app\n    type: roundrobin\n"
        f"    nodes: {{ \"{args.upstream}\": 1 }}\n"
    )


def consumers(numbers: range, scheme: str | None) -> str:
    lines = ["consumers:\n"] if numbers else []
    for n in numbers:
        lines.append(f"  - username: c{n}\n    plugins: {{ {credential(n, scheme)} }}\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--routes", type=int, default=10)
    parser.add_argument("--consumers", type=int, default=10)
    parser.add_argument("--auth", choices=["key-auth", "jwt-hs256", "jwt-rs256"], help="on every route")
    parser.add_argument("--forget", action="store_true", help="verify each token anew")
    parser.add_argument("--folder", action="store_true", help="resources as many small files")
    parser.add_argument("--port", type=int, required=True, help="and the next two")
    parser.add_argument("--upstream", default="127.0.0.1:18001")
    parser.add_argument("--change", metavar="HOST", help="only give route 5 another host")
    args = parser.parse_args()
    out = args.out.resolve()
    resources = out / "resources"

    def write(name: str, text: str) -> None:
        path = resources / name if args.folder else out / name
        fresh = path.with_name(path.name + ".new")
        fresh.write_text(text + "#END\n")
        os.replace(fresh, path)

    def routes(numbers: range) -> str:
        hosts = {5: args.change}
        return "routes:\n" + "".join(route(n, args, hosts.get(n)) for n in numbers)

    if args.folder:
        resources.mkdir(parents=True, exist_ok=True)
        steps = range(0, args.routes, 100)
        for start in steps[:1] if args.change else steps:
            write(f"routes-{start:06}.yaml", routes(range(start, min(start + 100, args.routes))))
        if args.change:
            return
        write("00-common.yaml", common(args, out))
        for start in range(0, args.consumers, 1000):
            numbers = range(start, min(start + 1000, args.consumers))
            write(f"consumers-{start:06}.yaml", consumers(numbers, args.auth))
    else:
        out.mkdir(parents=True, exist_ok=True)
        text = common(args, out) + consumers(range(args.consumers), args.auth) + routes(range(args.routes))
        write("apisix.yaml", text)
        if args.change:
            return
    bootstrap = benchlib.bootstrap(args, out)
    if args.forget:
        bootstrap["plugin_attr"]["jwt-auth"] = {"remembered_tokens": 0}
    (out / "config.yaml").write_text(json.dumps(bootstrap, indent=2))
    secrets = out / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    keys: dict[str, dict[str, str]] = {}
    if args.auth == "jwt-rs256":
        pem, secret = str(out / "rsa.pem"), {"capture_output": True, "check": True}
        subprocess.run(["openssl", "genrsa", "-out", pem, "2048"], **secret)
        public = subprocess.run(["openssl", "rsa", "-in", pem, "-pubout"], **secret).stdout
        keys["rsa"] = {"public": public.decode()}
    for n in range(args.consumers):
        keys.setdefault(document(n), {})[f"c{n}"] = api_key(n)
    for name, fields in keys.items():
        path = secrets / f"{name}.json"
        with open(path, "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
            json.dump(fields, file)
    # For the load generator: one key a line.
    sample = range(0, args.consumers, max(1, args.consumers // 1000))
    if args.auth in (None, "key-auth"):
        keys_of = [api_key(n) for n in sample]
    else:
        keys_of = [token(n, args.auth.partition("-")[2].upper(), out) for n in sample]
    (out / "keys.txt").write_text("".join(f"{key}\n" for key in keys_of))
    (out / "wrong.txt").write_text("".join(f"wrong-{api_key(n)}\n" for n in sample))


if __name__ == "__main__":
    main()
