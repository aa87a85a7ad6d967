#!/usr/bin/env python3
"""Writes a gateway's configuration for a measurement: so many routes, so many consumers.

Every credential is a reference into documents of the file manager; route n serves
r<n>.bench.test, consumer n has the key k<n>-...
"""

import argparse
import hashlib
import json
import os
import pathlib

import benchlib


def api_key(n: int) -> str:
    """The key of consumer n: the load generator and the gateway must agree on it."""
    return f"k{n}-" + hashlib.sha256(f"claviger bench {n}".encode()).hexdigest()[:24]


def document(n: int) -> str:
    """The document that holds the key of consumer n; a document may not grow past 2 MiB."""
    return f"keys{n // 10000}"


def route(n: int, args: argparse.Namespace, host: str | None = None) -> str:
    plugins = "prometheus: {}" + (", key-auth: {}" if args.auth else "")
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


def consumers(numbers: range) -> str:
    lines = ["consumers:\n"] if numbers else []
    for n in numbers:
        reference = f"$secret://file/main/{document(n)}/c{n}"
        lines.append(f"  - username: c{n}\n    plugins: {{ key-auth: {{ key: {reference} }} }}\n")
    return "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--routes", type=int, default=10)
    parser.add_argument("--consumers", type=int, default=10)
    parser.add_argument("--auth", action="store_true", help="every route asks for a key")
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
            write(f"consumers-{start:06}.yaml", consumers(numbers))
    else:
        out.mkdir(parents=True, exist_ok=True)
        text = common(args, out) + consumers(range(args.consumers)) + routes(range(args.routes))
        write("apisix.yaml", text)
        if args.change:
            return
    (out / "config.yaml").write_text(json.dumps(benchlib.bootstrap(args, out), indent=2))
    secrets = out / "secrets"
    secrets.mkdir(mode=0o700, exist_ok=True)
    keys: dict[str, dict[str, str]] = {}
    for n in range(args.consumers):
        keys.setdefault(document(n), {})[f"c{n}"] = api_key(n)
    for name, fields in keys.items():
        path = secrets / f"{name}.json"
        with open(path, "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
            json.dump(fields, file)
    # For the load generator: one key a line.
    sample = range(0, args.consumers, max(1, args.consumers // 1000))
    (out / "keys.txt").write_text("".join(f"{api_key(n)}\n" for n in sample))


if __name__ == "__main__":
    main()
