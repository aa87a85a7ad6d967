"""A client on Python's ssl module, which trusts what it is told to trust and checks names.

    tls.py PORT < wishes        (a JSON list)        prints a JSON list of what became of each

A wish is a connection: `name` (checked against the certificate, and sent), `version` ("1.2", "1.3"
or absent), `alpn` (a list), `ca` and `cert` (files), `resume` (index of an earlier wish with the same
settings, whose session is offered). One request is sent over it.
"""

import json
import socket
import ssl
import sys

VERSIONS = {
    "1.1": ssl.TLSVersion.TLSv1_1,
    "1.2": ssl.TLSVersion.TLSv1_2,
    "1.3": ssl.TLSVersion.TLSv1_3,
}


def context_of(wish: dict) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=wish["ca"])
    if version := wish.get("version"):
        context.minimum_version = context.maximum_version = VERSIONS[version]
        if version == "1.1":
            context.set_ciphers("ALL:@SECLEVEL=0")
    if alpn := wish.get("alpn"):
        context.set_alpn_protocols(alpn)
    if cert := wish.get("cert"):
        context.load_cert_chain(cert)
    return context


def connect(port: int, wish: dict, context: ssl.SSLContext, session: ssl.SSLSession | None) -> tuple:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as tcp:
        with context.wrap_socket(tcp, server_hostname=wish["name"], session=session) as tls:
            tls.sendall(f"GET / HTTP/1.1\r\nHost: {wish['name']}\r\nConnection: close\r\n\r\n".encode())
            answer = b""
            while part := tls.recv(65536):
                answer += part
            certificate = tls.getpeercert()
            told = {
                "version": tls.version(),
                "cipher": tls.cipher()[0],
                "alpn": tls.selected_alpn_protocol(),
                "names": [name for kind, name in certificate["subjectAltName"] if kind == "DNS"],
                "issuer": dict(pair for part in certificate["issuer"] for pair in part)["commonName"],
                "resumed": tls.session_reused,
                "status": answer.split(b" ")[1].decode() if answer else None,
            }
            return told, tls.session


def main() -> None:
    port, wishes = int(sys.argv[1]), json.load(sys.stdin)
    contexts: dict[str, ssl.SSLContext] = {}
    told, sessions = [], []
    for wish in wishes:
        settings = {key: value for key, value in wish.items() if key not in ("name", "resume")}
        context = contexts.setdefault(json.dumps(settings, sort_keys=True), context_of(wish))
        session = sessions[wish["resume"]] if "resume" in wish else None
        try:
            outcome, session = connect(port, wish, context, session)
        except ssl.SSLCertVerificationError as error:
            outcome, session = {"unverified": error.verify_message}, None
        except ssl.SSLError as error:
            outcome, session = {"failed": error.reason}, None
        told.append(outcome)
        sessions.append(session)
    json.dump(told, sys.stdout)


main()
