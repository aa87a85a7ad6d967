#!/usr/bin/env bash
# chaos.sh [SECONDS]: the gateway under load among managers that misbehave at random. Prints the
# seed; CLAVIGER_CHAOS_SEED repeats a run's faults.
set -euo pipefail
cd "$(dirname "$0")/.."

export CLAVIGER_CHAOS_SECONDS="${1:-${CLAVIGER_CHAOS_SECONDS:-120}}"
scripts/setup.sh build test
PATH="$PWD/.venv/bin:$PATH"
export PATH
exec cargo test --locked --test it -- managers_misbehave --nocapture
