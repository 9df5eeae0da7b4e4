# The one list of commands. `make` alone explains them.
.DEFAULT_GOAL := help
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c

TARGET := $(or $(CARGO_TARGET_DIR),target)
BITACORA := $(TARGET)/release/bitacora
# Without an account at any provider, `make run` takes the sandbox.
ACCOUNTS := ELEVENLABS_API_KEY TWILIO_ACCOUNT_SID BUILDERBOT_API_KEY

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
run: build ## Start the service, on a providers' sandbox while you have set no provider's key
	@for key in $(ACCOUNTS); do \
	  if [ -n "$${!key:-}" ] || grep -qsE "^(export )?$$key=[^ ]" .env; then exec $(BITACORA) serve; fi; \
	done; exec $(BITACORA) dev

.PHONY: demo
demo: build ## A campaign of 200 calls in about a minute, on the service of `make run` or its own
	@python3 tests/demo/campaign.py $(BITACORA)

.PHONY: test
test: setup lint ## Everything, on a throw-away PostgreSQL that the tests start themselves
	bash tests/with_postgres.sh cargo test --workspace --locked
	cargo doc --workspace --no-deps --locked --quiet
	bash tests/sdk/run.sh
	bash tests/tlog/run.sh
	bash tests/tour/run.sh $(TARGET)/debug/bitacora

.PHONY: sdk
sdk: setup ## The providers' official SDKs against sandbox and service (wants PyPI once)
	cargo build --locked --quiet
	bash tests/sdk/run.sh

.PHONY: tlog
tlog: setup ## Go's sumdb follows the transparency log of a service (wants Go once)
	cargo build --locked --quiet
	bash tests/tlog/run.sh

.PHONY: lint
lint: ## Format and lints, warnings are errors
	cargo fmt --all --check
	cargo clippy --workspace --all-targets --locked --quiet -- -D warnings

.PHONY: bench
bench: setup ## What it can do, against PostgreSQL alone and the stock framework; BENCH=--quick for a look
	cargo build --release --locked -p bitacora -p bitacora-bench
	DURABLE=1 bash tests/with_postgres.sh $(TARGET)/release/bench --program $(BITACORA) $(BENCH)

.PHONY: tour
tour: build ## Run every command of the README's tour, and the demonstration, on a fresh service
	bash tests/tour/run.sh $(BITACORA)

.PHONY: openapi
openapi: ## Write openapi/bitacora.json, which a test compares
	cargo run --quiet --locked -- openapi > openapi/bitacora.json
