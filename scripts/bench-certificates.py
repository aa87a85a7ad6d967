#!/usr/bin/env python3
"""Writes a gateway's configuration for a measurement of TLS: so many names, a certificate for each.

Certificates and keys are references into documents of the file manager, a hundred pairs in each.
Name n is s<n>.bench.test; its certificate has one intermediate behind it, as public authorities
issue them. ECDSA keys (P-256) are made for each; of RSA keys (2048 bits) making takes too long, so
all certificates are for one key, which each item holds for itself all the same. Name 0's pair is
also written to static.pem and static.key, for a server that has one certificate only, and all
names to names.txt, in an order without pattern. Needs Python's `cryptography`.
"""

import argparse
import datetime
import json
import os
import pathlib
import random

import benchlib
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

NOW = datetime.datetime.now(datetime.UTC)
PAIRS_IN_A_DOCUMENT = 100


def named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


class Authority:
    def __init__(self, name: str, kind: str, issuer: "Authority | None" = None) -> None:
        self.name, self.key = named(name), new_key(kind)
        self.cert = (issuer or self).sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None))

    def sign(self, name: x509.Name, key, *extensions: x509.ExtensionType) -> x509.Certificate:
        builder = x509.CertificateBuilder(issuer_name=self.name, subject_name=name)
        builder = builder.public_key(key.public_key()).serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(NOW - datetime.timedelta(hours=1))
        builder = builder.not_valid_after(NOW + datetime.timedelta(days=90))
        for extension in extensions:
            builder = builder.add_extension(extension, critical=isinstance(extension, x509.BasicConstraints))
        return builder.sign(self.key, hashes.SHA256())


def new_key(kind: str):
    if kind == "rsa":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1())


def pem(cert: x509.Certificate) -> str:
    return cert.public_bytes(serialization.Encoding.PEM).decode()


def key_pem(key) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def host(n: int) -> str:
    return f"s{n}.bench.test"


def write_secret(path: pathlib.Path, text: str) -> None:
    with open(path, "w", opener=lambda p, f: os.open(p, f, 0o600)) as file:
        file.write(text)


def pairs(count: int, kind: str) -> list[tuple[str, str]]:
    root = Authority("Bench CA", kind)
    middle = Authority("Bench intermediate", kind, root)
    shared = new_key(kind) if kind == "rsa" else None
    chain, made = pem(middle.cert), []
    for n in range(count):
        key = shared or new_key(kind)
        names = x509.SubjectAlternativeName([x509.DNSName(host(n))])
        made.append((pem(middle.sign(named(host(n)), key, names)) + chain, key_pem(key)))
    return made


def resources(args: argparse.Namespace, out: pathlib.Path) -> str:
    def item(n: int) -> str:
        reference = f"$secret://file/main/pairs{n // PAIRS_IN_A_DOCUMENT}"
        return f"  - {{ id: s{n}, sni: {host(n)}, cert: {reference}/c{n}, key: {reference}/k{n} }}\n"

    return (
        f"secrets:\n  - id: file/main\n    path: {json.dumps(str(out / 'secrets'))}\n"
        "ssls:\n" + "".join(map(item, range(args.certificates))) + "routes:\n"
        "  - id: all\n    uri: /*\n    plugins: { prometheus: {} }\n"
        f"    upstream: {{ type: roundrobin, nodes: {{ \"{args.upstream}\": 1 }} }}\n#END\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--certificates", type=int, default=10)
    parser.add_argument("--key", choices=["ecdsa", "rsa"], default="ecdsa")
    parser.add_argument("--tickets", action="store_true", help="sessions resume by ticket")
    parser.add_argument("--port", type=int, required=True, help="and the next three; the last is TLS")
    parser.add_argument("--upstream", default="127.0.0.1:18001")
    args = parser.parse_args()
    out = args.out.resolve()
    (out / "secrets").mkdir(mode=0o700, parents=True, exist_ok=True)
    made = pairs(args.certificates, args.key)
    for start in range(0, len(made), PAIRS_IN_A_DOCUMENT):
        document = {}
        for n, (cert, key) in enumerate(made[start : start + PAIRS_IN_A_DOCUMENT], start):
            document |= {f"c{n}": cert, f"k{n}": key}
        name = f"pairs{start // PAIRS_IN_A_DOCUMENT}.json"
        write_secret(out / "secrets" / name, json.dumps(document))
    (out / "static.pem").write_text(made[0][0])
    write_secret(out / "static.key", made[0][1])
    (out / "apisix.yaml").write_text(resources(args, out))
    bootstrap = benchlib.bootstrap(args, out)
    listener = {"ip": "127.0.0.1", "port": args.port + 3}
    bootstrap["apisix"]["ssl"] = {
        "enable": True,
        "listen": [listener],
        "ssl_session_tickets": args.tickets,
    }
    (out / "config.yaml").write_text(json.dumps(bootstrap, indent=2))
    names = [host(n) for n in range(args.certificates)]
    random.Random(5).shuffle(names)
    (out / "names.txt").write_text("".join(f"{name}\n" for name in names))


if __name__ == "__main__":
    main()
