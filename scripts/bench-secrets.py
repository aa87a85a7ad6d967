#!/usr/bin/env python3
"""What scripts/bench-secrets.sh measures with: fills an OpenBao server with the keys of so many
consumers, writes a gateway's configuration that refers to them, and changes one document.

Consumer n has the key `k<n>-<generation>-...` in field k<n % 100> of document d<n / 100>.
"""

import argparse
import concurrent.futures
import hashlib
import http.client
import json
import os
import pathlib
import threading
import time
import urllib.parse

import benchlib

PER_DOCUMENT = 100


def api_key(n: int, generation: int = 0) -> str:
    """The key of consumer n after so many rotations of its document."""
    text = f"claviger bench {n} {generation}"
    return f"k{n}-{generation}-" + hashlib.sha256(text.encode()).hexdigest()[:24]


def fields(document: int, generation: int = 0) -> dict[str, str]:
    first = document * PER_DOCUMENT
    return {f"k{k}": api_key(first + k, generation) for k in range(PER_DOCUMENT)}


class Bao:
    """A few kept connections: one per thread."""

    def __init__(self, address: str, token: str):
        self.host = urllib.parse.urlsplit(address).netloc
        self.token = token
        self.local = threading.local()

    def put(self, document: int, generation: int = 0) -> None:
        if not hasattr(self.local, "connection"):
            self.local.connection = http.client.HTTPConnection(self.host, timeout=30)
        connection = self.local.connection
        body = json.dumps({"data": fields(document, generation)})
        path = f"/v1/secret/data/c/d{document}"
        connection.request("POST", path, body, {"X-Vault-Token": self.token})
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise SystemExit(f"POST {path}: {response.status} {answer!r}")


def resources(args: argparse.Namespace) -> str:
    text = [
        "secrets:\n"
        f"  - {{ id: vault/main, uri: '{args.bao}', prefix: secret, kv_version: 2, "
        f"token: $env://BAO_TOKEN, ttl: {args.ttl} }}\n"
        "routes:\n"
        "  - id: guarded\n    uri: /*\n    plugins: { key-auth: {} }\n"
        f"    upstream: {{ nodes: {{ \"{args.upstream}\": 1 }} }}\n"
    ]
    if args.documents:
        text.append("consumers:\n")
    for n in range(args.documents * PER_DOCUMENT):
        reference = f"$secret://vault/main/c/d{n // PER_DOCUMENT}/k{n % PER_DOCUMENT}"
        text.append(
            f"  - username: c{n}\n    plugins: {{ key-auth: {{ key: {reference} }} }}\n"
        )
    return "".join(text) + "#END\n"


def bootstrap(args: argparse.Namespace) -> dict:
    config = benchlib.bootstrap(args, args.out)
    config["nginx_config"]["error_log_level"] = "info"
    config["nginx_config"]["http"] = {"access_log": str(args.out / "access.log")}
    config["plugin_attr"]["prometheus"]["refresh_interval"] = 1
    return config


def fill(args: argparse.Namespace) -> None:
    bao = Bao(args.bao, os.environ["BAO_TOKEN"])
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        for _ in pool.map(bao.put, range(args.documents)):
            pass


def write(args: argparse.Namespace) -> None:
    args.out = args.out.resolve()
    args.out.mkdir(parents=True, exist_ok=True)
    (args.out / "apisix.yaml").write_text(resources(args))
    (args.out / "config.yaml").write_text(json.dumps(bootstrap(args), indent=2))


def rotate(args: argparse.Namespace) -> None:
    """Changes one document, then asks with its new and old keys until they are in force."""
    Bao(args.bao, os.environ["BAO_TOKEN"]).put(args.document, args.generation)
    began = time.monotonic()
    gateway = http.client.HTTPConnection("127.0.0.1", args.port, timeout=10)

    def status(n: int, generation: int) -> int:
        gateway.request("GET", "/", headers={"apikey": api_key(n, generation)})
        response = gateway.getresponse()
        response.read()
        return response.status

    first = args.document * PER_DOCUMENT
    while status(first, args.generation) != 200:
        if time.monotonic() - began > args.within:
            raise SystemExit(f"the new keys are not in force after {args.within} s")
        time.sleep(0.01)
    took = time.monotonic() - began
    for n in range(first, first + PER_DOCUMENT):
        if (status(n, args.generation), status(n, args.generation - 1)) != (200, 401):
            raise SystemExit(f"consumer {n}: the new key must pass and the old one must not")
    print(f"{took:.2f}")


def key(args: argparse.Namespace) -> None:
    print(api_key(args.consumer))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bao", default="http://127.0.0.1:18200")
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser("fill", help="write all documents")
    command.add_argument("--documents", type=int, default=1000)
    command.set_defaults(run=fill)

    command = commands.add_parser("write", help="write a gateway's configuration")
    command.add_argument("out", type=pathlib.Path)
    command.add_argument("--documents", type=int, default=1000)
    command.add_argument("--port", type=int, required=True, help="and the next two")
    command.add_argument("--upstream", required=True)
    command.add_argument("--ttl", type=int, default=300)
    command.set_defaults(run=write)

    command = commands.add_parser("rotate", help="change one document; print seconds until in force")
    command.add_argument("--port", type=int, required=True)
    command.add_argument("--document", type=int, default=500)
    command.add_argument("--generation", type=int, required=True)
    command.add_argument("--within", type=float, default=60)
    command.set_defaults(run=rotate)

    command = commands.add_parser("key", help="print a consumer's first key")
    command.add_argument("consumer", type=int)
    command.set_defaults(run=key)

    args = parser.parse_args()
    args.run(args)


if __name__ == "__main__":
    main()
