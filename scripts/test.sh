#!/usr/bin/env bash
# test.sh [RUNNER-ARGUMENTS...]: all tests, or those the arguments choose.
set -euo pipefail
cd "$(dirname "$0")/.."
. scripts/lib.sh

scripts/setup.sh build test
PATH="$PWD/.venv/bin:$PATH"
export PATH

if cargo nextest --version >/dev/null 2>&1; then
    # nextest leaves documentation examples out. They run first: its summary is the last word.
    [[ $# -gt 0 ]] || cargo test --locked --doc --quiet
    exec cargo nextest run --locked "$@"
else
    exec cargo test --locked "$@"
fi
