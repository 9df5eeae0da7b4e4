# The one list of commands. `make` alone explains them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

.PHONY: help
help: ## List the commands
	@awk -F':.*## ' '/^[a-z-]+:.*## /{printf "  make %-9s %s\n", $$1, $$2}' Makefile

.PHONY: setup
setup: ## Install what is missing: a C compiler and PostgreSQL (asks for sudo if need be)
	@bash tests/setup.sh

.PHONY: build
build: setup
	cargo build --release --locked

.PHONY: run
run: build ## Start the service on a PostgreSQL of its own; DATABASE_URL uses yours
	./target/release/bitacora serve

.PHONY: test
test: setup lint ## Everything, on a throw-away PostgreSQL that the tests start themselves
	bash tests/with_postgres.sh cargo test --workspace --locked
	cargo doc --workspace --no-deps --locked --quiet

.PHONY: lint
lint: ## Format and lints, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

.PHONY: tour
tour: build ## Run every command of the README's tour against a fresh service
	bash tests/tour/run.sh

.PHONY: openapi
openapi: ## Write openapi/bitacora.json, which a test compares
	cargo run --quiet --locked -- openapi > openapi/bitacora.json
