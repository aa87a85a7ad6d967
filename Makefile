# What a developer does every day. `make help` lists it; each target is one line or one script.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# cargo-nextest where it is installed, else cargo's own runner.
RUNNER := $(shell cargo nextest --version >/dev/null 2>&1 && echo nextest run || echo test)

.PHONY: help
help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

## Using it

.PHONY: run
run: ## build, write a configuration into .quickstart/, start, print three curl lines
	@scripts/run.sh

.PHONY: run-vault
run-vault: ## the same against a real OpenBao server, step by step
	@scripts/run-vault.sh

.PHONY: clean-run
clean-run: ## forget what run and run-vault wrote
	rm -rf .quickstart .vault-demo

.PHONY: image
image: ## container image claviger:latest
	docker build -t claviger:latest .

## Changing it

.PHONY: setup
setup: ## install what building, testing and measuring need, or say what is missing
	@scripts/setup.sh build test bench

.PHONY: check
check: ## the quickest answer to "does it compile"
	cargo check --all-targets

.PHONY: fmt
fmt: ## format
	cargo fmt

.PHONY: lint
lint: ## format and clippy, warnings denied
	cargo fmt --check
	cargo clippy --all-targets -- -D warnings

.PHONY: test
test: ## all tests
	@scripts/test.sh

.PHONY: unit
unit: ## tests inside src/
	cargo $(RUNNER) --lib

.PHONY: it
it: ## tests that start the program
	@scripts/test.sh --test it

.PHONY: chaos
chaos: ## two minutes of managers that misbehave at random, under load
	@scripts/chaos.sh

.PHONY: audit
audit: ## testssl and sslyze against the real program; every finding is explained
	@scripts/audit.sh

.PHONY: golden
golden: ## rewrite tests/golden; read the diff
	CLAVIGER_GOLDEN=rewrite cargo $(RUNNER) --test golden --test it golden resource_files

.PHONY: doc
doc: ## crate documentation, warnings denied
	RUSTDOCFLAGS=-Dwarnings cargo doc --no-deps

.PHONY: deny
deny: ## licences, bans and sources of dependencies
	cargo deny check bans licenses sources

.PHONY: ci
ci: ## what CI runs
	@.ci/run

## Measuring it

.PHONY: bench
bench: ## CPU per request and per TLS handshake beside bare Pingora
	@scripts/bench.sh
	@scripts/bench-auth.sh
	@scripts/bench-tls.sh

.PHONY: bench-secrets
bench-secrets: ## 100 000 consumers in OpenBao: load, memory, one rotation, beside their bars
	@scripts/bench-secrets.sh

.PHONY: bench-count
bench-count: ## instructions per request and handshake under callgrind, beside bare Pingora
	@scripts/bench-count.sh
	@scripts/bench-tls-count.sh
