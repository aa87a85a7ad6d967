"""A second implementation of hmac-auth's client side, by APISIX's documentation, on Python's
standard library alone.

    hmac_auth.py HOST:PORT SEED COUNT < secrets        (lines of `key-id secret`)

Draws COUNT requests by SEED and sends each twice: as it was signed, which must be let in, and with
one byte changed after signing, which must not. The byte is one of the method, the path, the query,
a signed header, the date, the body, the signature or the key, in turn. Prints what was counted;
the first surprise ends it with all that is needed to see why.
"""

import base64
import hashlib
import hmac
import http.client
import random
import sys
import time
from dataclasses import dataclass, replace
from email.utils import formatdate

ALGORITHMS = {
    "hmac-sha1": hashlib.sha1,
    "hmac-sha256": hashlib.sha256,
    "hmac-sha512": hashlib.sha512,
}
KINDS = ["method", "path", "query", "header", "date", "body", "signature", "key"]
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "HEAD", "PURGE", "X-ODD"]
PLAIN = "abcXYZ019-_~!$&'()*+,;=:@"
ENCODED = ["%20", "%41", "%7b", "%7D", "%C3%A9", "%e6%97%a5", "%25", "%3F", "%23", "%5C", "%22", "%2B"]
SEGMENTS = [".", "..", "%2e", "%2E%2e", "", "a%2Fb", "%2F"]
VALUES = ["1", "a b", "\u00e9t\u00e9", "\u65e5\u672c", "x, y;z=\"1\"", "=?utf-8?q?a?=", "0" * 300, "%41", ","]
NAMES = ["X-Foo", "X-Bar-Baz", "Content-Type", "User-Agent", "X-1", "Cookie", "X-Tenant"]


@dataclass
class Sent:
    """A request as it goes over the wire, and what it is signed with."""

    method: str
    path: str
    query: str | None
    headers: list[tuple[str, str]]
    body: bytes
    chunked: bool
    key_id: str
    secret: str
    algorithm: str
    names: list[str]
    date: int
    flip: bool = False


def unescaped(path):
    """Percent-decoded as bytes."""
    out = bytearray()
    at = 0
    raw = path.encode()
    while at < len(raw):
        if raw[at] == 0x25:
            out.append(int(raw[at + 1 : at + 3], 16))
            at += 3
        else:
            out.append(raw[at])
            at += 1
    return bytes(out)


def normalised(path):
    """Decoded, slashes merged, dot segments resolved; None where it leads above the root."""
    kept = []
    text = unescaped(path)
    if not text.startswith(b"/"):
        return None
    pieces = text.split(b"/")[1:]
    ends_open = pieces[-1] in (b"", b".", b"..")
    for piece in pieces:
        if piece == b"..":
            if not kept:
                return None
            kept.pop()
        elif piece not in (b"", b"."):
            kept.append(piece)
    text = b"/" + b"/".join(kept)
    return text + b"/" if ends_open and kept else text


def target(sent):
    query = b"?" + sent.query.encode() if sent.query else b""
    return sent.method.encode() + b" " + normalised(sent.path) + query


def signature(sent):
    fields = {}
    for name, value in wire_fields(sent):
        fields.setdefault(name.lower(), value)
    lines = [sent.key_id.encode()]
    for name in sent.names:
        value = fields.get(name.lower())
        if value is not None:
            lines.append(name.encode() + b": " + value.encode())
        elif name == "@request-target":
            lines.append(target(sent))
    text = b"\n".join(lines) + b"\n"
    return hmac.new(sent.secret.encode(), text, ALGORITHMS[sent.algorithm]).digest()


def wire_fields(sent):
    digest = base64.b64encode(hashlib.sha256(sent.body).digest()).decode()
    return [
        ("Host", "gateway.test"),
        ("Date", formatdate(sent.date, usegmt=True)),
        ("Digest", f"SHA-256={digest}"),
    ] + sent.headers


def authorization(sent, signed):
    raw = bytearray(signed)
    if sent.flip:
        raw[len(raw) // 2] ^= 0x10
    parts = [
        f'keyId="{sent.key_id}"',
        f'algorithm="{sent.algorithm}"',
        f'headers="{" ".join(sent.names)}"',
        f'signature="{base64.b64encode(raw).decode()}"',
    ]
    return parts


def draw_segment(rng):
    if rng.random() < 0.2:
        return rng.choice(SEGMENTS)
    pick = lambda: rng.choice(ENCODED) if rng.random() < 0.2 else rng.choice(PLAIN)
    return "".join(pick() for _ in range(rng.randint(1, 8)))


def draw_path(rng):
    while True:
        path = "/" + "/".join(draw_segment(rng) for _ in range(rng.randint(1, 5)))
        if normalised(path) is not None:
            return path


def draw_query(rng, needed):
    if not needed and rng.random() < 0.4:
        return rng.choice([None, ""])
    pick = lambda: rng.choice(ENCODED) if rng.random() < 0.2 else rng.choice(PLAIN + "?/")
    return "".join(pick() for _ in range(rng.randint(1, 20)))


def mixed_case(rng, name):
    return "".join(rng.choice([char.lower(), char.upper()]) for char in name)


def draw(rng, kind, secrets):
    chosen = rng.sample(NAMES, rng.randint(1, 4))
    headers = []
    for name in chosen:
        for _ in range(2 if rng.random() < 0.2 else 1):
            headers.append((name, rng.choice(VALUES)))
    names = ["date"]
    if kind in ("method", "path", "query") or rng.random() < 0.7:
        names.append("@request-target")
    signed = chosen if kind == "header" else rng.sample(chosen, rng.randint(0, len(chosen)))
    names += [mixed_case(rng, name) for name in signed]
    if rng.random() < 0.5:
        names.append("digest")
    if rng.random() < 0.3:
        names.append("host")
    if rng.random() < 0.2:
        names.append("x-not-there")
    rng.shuffle(names)
    size = rng.choice([0, 1, 10, 1000, 70_000]) if kind != "body" else rng.randint(1, 2000)
    key_id = rng.choice(sorted(secrets))
    return Sent(
        method=rng.choice(METHODS),
        path=draw_path(rng),
        query=draw_query(rng, kind == "query"),
        headers=headers,
        body=rng.randbytes(size),
        chunked=rng.random() < 0.3,
        key_id=key_id,
        secret=secrets[key_id],
        algorithm=rng.choice(sorted(ALGORITHMS)),
        names=names,
        date=int(time.time()) + rng.randint(-200, 200),
    )


def other(rng, char):
    return rng.choice([char2 for char2 in "abcXYZ019" if char2 != char])


def with_other_byte(rng, text, fits=lambda _: True):
    """One character of the text changed, so that `fits` holds."""
    while True:
        at = rng.randrange(len(text))
        changed = text[:at] + other(rng, text[at]) + text[at + 1 :]
        if fits(changed):
            return changed


def mutated(rng, sent, kind):
    """What is sent instead of what was signed."""
    if kind == "method":
        return replace(sent, method=with_other_byte(rng, sent.method))
    if kind == "path":

        def differs(path):
            try:
                new = normalised(path)
                text = "" if new is None else new.decode()
            except ValueError:
                return False
            # Control characters are refused before anything is authenticated.
            return path[0] == "/" and text.isprintable() and new not in (None, normalised(sent.path))

        return replace(sent, path=with_other_byte(rng, sent.path + "a", differs))
    if kind == "query":
        return replace(sent, query=with_other_byte(rng, sent.query))
    if kind == "header":
        signed = {name.lower() for name in sent.names}
        at = next(at for at, (name, _) in enumerate(sent.headers) if name.lower() in signed)
        name, value = sent.headers[at]
        headers = list(sent.headers)
        headers[at] = (name, with_other_byte(rng, value))
        return replace(sent, headers=headers)
    if kind == "date":
        return replace(sent, date=sent.date + 1)
    if kind == "signature":
        return replace(sent, flip=True)
    return sent


def exchange(connection, rng, sent, authorization_value, body):
    path = sent.path if sent.query is None else f"{sent.path}?{sent.query}"
    connection.putrequest(sent.method, path, skip_host=True, skip_accept_encoding=True)
    fields = wire_fields(sent) + [("Authorization", authorization_value)]
    for name, value in fields:
        connection.putheader(name, value.encode())
    if sent.chunked:
        connection.putheader("Transfer-Encoding", "chunked")
        body = chunked(rng, body)
    else:
        connection.putheader("Content-Length", str(len(body)))
    connection.endheaders(body)
    answer = connection.getresponse()
    return answer.status, answer.read()


def chunked(rng, body):
    out = bytearray()
    at = 0
    while at < len(body):
        size = rng.randint(1, 5000)
        piece = body[at : at + size]
        out += b"%x\r\n%b\r\n" % (len(piece), piece)
        at += size
    return bytes(out) + b"0\r\n\r\n"


def main():
    address, seed, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    secrets = dict(line.split() for line in sys.stdin.read().splitlines())
    rng = random.Random(seed)
    host, port = address.rsplit(":", 1)
    connection = http.client.HTTPConnection(host, int(port), timeout=20)
    accepted = refused = 0
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        sent = draw(rng, kind, secrets)
        parts = authorization(sent, signature(sent))
        rng.shuffle(parts)
        value = "Signature " + rng.choice([",", ", ", " , "]).join(parts)
        status, said = exchange(connection, rng, sent, value, sent.body)
        if status != 200:
            sys.exit(f"seed {seed}, request {number} must be accepted: {status} {said} {sent} {value}")
        accepted += 1
        changed = mutated(rng, sent, kind)
        body = sent.body if kind == "body" else sent.body[:2000]
        if kind == "body":
            at = rng.randrange(len(body))
            body = body[:at] + bytes([body[at] ^ (1 << rng.randrange(8))]) + body[at + 1 :]
        elif len(sent.body) > 2000:
            # What is refused unread should be sent whole before the answer comes.
            changed = replace(changed, body=body)
            sent = replace(sent, body=body)
        signer = replace(sent, secret=with_other_byte(rng, sent.secret)) if kind == "key" else sent
        parts = authorization(changed, signature(signer))
        status, said = exchange(connection, rng, changed, "Signature " + ",".join(parts), body)
        if status != 401:
            sys.exit(f"seed {seed}, {kind} of request {number} must be refused: {status} {said} {changed}")
        refused += 1
    print(f"accepted {accepted} refused {refused}")


if __name__ == "__main__":
    main()
