#!/usr/bin/env python3
"""Judges what testssl and sslyze found by the table in docs/tls-audit.md.

    audit.py RUN [--testssl FILE.json] [--sslyze FILE.json] [--mozilla NAME=FILE.txt]...

Every finding of RUN (`default`, `wide`) must have a row in the table, and every row of the tools
that ran must have been found: what is explained and no longer there is out of date. Findings are
testssl's above INFO, by its own ids; of sslyze what it calls vulnerable, missing or untrusted, by
the ids below; and each point in which a configuration of Mozilla's is not met, as sslyze prints it.
Exit status 1 when something is left unexplained.
"""

import argparse
import json
import pathlib
import re
import sys
from collections.abc import Iterator

TABLE = pathlib.Path(__file__).resolve().parent.parent / "docs" / "tls-audit.md"
# Severities of testssl that say: nothing is wrong.
FINE = {"OK", "INFO", "DEBUG"}


def of_testssl(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    found = json.loads(path.read_text())
    if not any(each["id"] == "scanTime" and each["severity"] in FINE for each in found):
        yield "scanTime", "the scan did not come to its end"
    for each in found:
        if each["severity"] not in FINE and each["id"] != "scanTime":
            # With several certificates: `cert_revocation <cert#2>`.
            name = each["id"].partition(" ")[0]
            yield name, f"{each['severity']}: {each['finding']}"


def of_sslyze(path: pathlib.Path) -> Iterator[tuple[str, str]]:
    document = json.loads(path.read_text())
    for scan in document["server_scan_results"]:
        if scan["scan_status"] != "COMPLETED":
            yield "scan", f"{scan['scan_status']}: {scan['connectivity_error_trace']}"
            continue
        for name, attempt in scan["scan_result"].items():
            if attempt["status"] == "NOT_SCHEDULED":
                yield f"{name}.skipped", "was not looked at"
            elif attempt["status"] != "COMPLETED":
                yield f"{name}.failed", str(attempt["error_reason"])
            else:
                for what, text in of_scan(name, attempt["result"]):
                    yield f"{name}.{what}", text


def of_scan(name: str, result: dict) -> Iterator[tuple[str, str]]:
    """What is wrong with the result of one of sslyze's scans."""
    if name == "certificate_info":
        for deployment in result["certificate_deployments"]:
            yield from of_certificate(deployment)
    elif name.endswith("_cipher_suites"):
        accepted = [each["cipher_suite"]["name"] for each in result["accepted_cipher_suites"]]
        if name in {"tls_1_2_cipher_suites", "tls_1_3_cipher_suites"}:
            if not accepted:
                yield "none", "no cipher suite is accepted"
        elif accepted:
            yield "accepted", ", ".join(accepted)
    elif name == "robot":
        if not result["robot_result"].startswith("NOT_VULNERABLE"):
            yield "vulnerable", result["robot_result"]
    elif name == "session_resumption":
        for way in ("session_id", "tls_ticket"):
            how = result[f"{way}_resumption_result"]
            if how != "FULLY_SUPPORTED":
                yield way, how
    elif name == "http_headers":
        if not result["strict_transport_security_header"]:
            yield "hsts", "no Strict-Transport-Security"
    else:
        wanted = {
            "tls_compression": ("supports_compression", False),
            "tls_1_3_early_data": ("supports_early_data", False),
            "openssl_ccs_injection": ("is_vulnerable_to_ccs_injection", False),
            "heartbleed": ("is_vulnerable_to_heartbleed", False),
            "session_renegotiation": ("is_vulnerable_to_client_renegotiation_dos", False),
            "tls_fallback_scsv": ("supports_fallback_scsv", True),
            "tls_extended_master_secret": ("supports_ems_extension", True),
            "elliptic_curves": ("supports_ecdh_key_exchange", True),
        }
        field, good = wanted.get(name, (None, None))
        if field is None:
            yield "unknown", "audit.py does not know this scan"
        elif result[field] != good:
            yield field, str(result[field])
        if name == "session_renegotiation" and not result["supports_secure_renegotiation"]:
            yield "insecure", "no secure renegotiation"


def of_certificate(deployment: dict) -> Iterator[tuple[str, str]]:
    for validation in deployment["path_validation_results"]:
        store = validation["trust_store"]["name"]
        if not validation["was_validation_successful"]:
            kind = "supplied_ca" if store == "Supplied CA file" else "public_stores"
            yield kind, f"not trusted by {store}"
    if deployment["ocsp_response"] is None:
        yield "ocsp_stapling", "no OCSP response is stapled"
    if not deployment["leaf_certificate_signed_certificate_timestamps_count"]:
        yield "certificate_transparency", "no signed certificate timestamps"
    for field, good in (
        ("received_chain_has_valid_order", True),
        ("received_chain_contains_anchor_certificate", False),
        ("verified_chain_has_sha1_signature", False),
    ):
        if deployment[field] != good:
            yield field, str(deployment[field])


def of_mozilla(name: str, path: pathlib.Path) -> Iterator[tuple[str, str]]:
    said = path.read_text()
    verdict = said.partition("COMPLIANCE AGAINST TLS CONFIGURATION")[2]
    points = re.findall(r"^ +\* (\w+): (.*)$", verdict, re.MULTILINE)
    if not points and "OK - Compliant" not in verdict:
        points = [("verdict", "sslyze said nothing about it")]
    for what, text in points:
        yield f"{name}.{what}", text


def explained(run: str, tools: set[str]) -> dict[tuple[str, str], str]:
    """Rows `| tool | finding | run | why |` of the table that are about this run and these tools."""
    rows = {}
    for line in TABLE.read_text().splitlines():
        cells = [cell.strip().strip("`") for cell in line.strip().strip("|").split("|")]
        if line.startswith("|") and len(cells) == 4 and cells[0] in tools and run in cells[2].split():
            rows[cells[0], cells[1]] = cells[3]
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--testssl", type=pathlib.Path)
    parser.add_argument("--sslyze", type=pathlib.Path)
    parser.add_argument("--mozilla", metavar="NAME=FILE", action="append", default=[])
    args = parser.parse_args()
    found: dict[tuple[str, str], str] = {}
    tools = set()

    def take(tool: str, findings: Iterator[tuple[str, str]]) -> None:
        tools.add(tool)
        for name, text in findings:
            found.setdefault((tool, name), text)

    if args.testssl:
        take("testssl", of_testssl(args.testssl))
    if args.sslyze:
        take("sslyze", of_sslyze(args.sslyze))
    for each in args.mozilla:
        name, _, path = each.partition("=")
        take("mozilla", of_mozilla(name, pathlib.Path(path)))
    rows = explained(args.run, tools)
    for (tool, name), text in sorted(found.items()):
        why = rows.get((tool, name))
        print(f"{'explained' if why else 'UNEXPLAINED'}: {tool} {name}: {text}")
    for tool, name in sorted(rows.keys() - found.keys()):
        print(f"OUT OF DATE: {tool} {name} is explained in {TABLE.name} and was not found")
    sys.exit(1 if found.keys() != rows.keys() else 0)


if __name__ == "__main__":
    main()
