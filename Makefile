# Everything that a contributor does, each step with its own set-up. `make help` lists it.

PYTHON ?= python3
CARGO ?= cargo
PORT ?= 8080
SOAK_SECONDS ?= 600
# Tests that have a whole form, which takes minutes, beside the short one of `make test`.
SOAKS := tests/soak $(addprefix tests/e2e/test_,balance.py lifecycle_storm.py broken_deploys.py supervisor_killed.py slow_import.py clocks.py forks_in_views.py)
VENV := .venv
TEST_VENV := target/venv
AGENTS_VENV := target/agents-venv
BENCH_VENV := target/bench-venv
WHEELS := target/wheels
# What the wheel is made of: a change in any of it makes a new one.
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find mcsup-core mcsup-py mcsup-cli -type f -not -name '*.pyc' -not -path '*/fuzz/*' 2>/dev/null)

export CARGO_TARGET_DIR ?= $(CURDIR)/target
# Where cargo-nextest goes if the machine has none.
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help run test lint test-rust test-docs api test-e2e test-pythons soak check-macos bench clean

help: ## Say what there is to make
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.ready ## Build, make .venv, and serve the mission-control example on port 8080
	$(VENV)/bin/mcsup -w 2 -b 0.0.0.0:$(PORT) --chdir examples/mission_control server:app

test: lint test-rust test-docs check-macos test-e2e test-pythons ## Run every check and every test
	@echo "all checks passed"

lint: ## Format and lints, warnings denied
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked -- -D warnings

test-rust: target/.nextest ## Unit and process tests
	$(CARGO) nextest run --workspace --locked --no-fail-fast

test-docs: ## Documentation and its examples, warnings denied
	$(CARGO) test --workspace --doc --locked
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked
	$(PYTHON) tests/public_items.py $(CARGO_TARGET_DIR)/doc

api: ## Write docs/API.md, the list of the public items
	$(CARGO) doc --workspace --no-deps --locked
	$(PYTHON) tests/public_items.py $(CARGO_TARGET_DIR)/doc --write

test-e2e: $(TEST_VENV)/.ready $(AGENTS_VENV)/.ready ## The installed wheel, driven as a user drives it
	$(TEST_VENV)/bin/python -m pytest -q tests/e2e tests/conformance tests/soak $(PYTEST_ARGS)

test-pythons: $(TEST_VENV)/.ready ## The main part of that with each other CPython from 3.10 on that is here
	$(TEST_VENV)/bin/python tests/pythons/run.py

soak: $(TEST_VENV)/.ready $(BENCH_VENV)/.ready ## Half an hour: clients of all kinds, storms of reloads, and the rest in full size
	SOAK_SECONDS=$(SOAK_SECONDS) MCSUP_SOAK=1 $(TEST_VENV)/bin/python -m pytest -q $(SOAKS) $(PYTEST_ARGS)

check-macos: ## Type-check for macOS, without a Mac
	sh tests/macos/check.sh

bench: $(BENCH_VENV)/.ready ## mcsup beside its peers, which it installs (an hour; BENCH_ARGS)
	$(CARGO) build --release --locked -p mcsup-py --example floor
	$(BENCH_VENV)/bin/python tests/bench/bench.py $(BENCH_ARGS)

clean: ## Remove everything that was built
	rm -rf target $(VENV)

target/.nextest:
	@mkdir -p target
	$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install cargo-nextest --locked --root $(CURDIR)/target/tools
	@touch $@

# Debian's Python has no pip outside of a virtual environment.
%/bin/python:
	$(PYTHON) -m venv $*

# One build of the wheel, for the example and for the tests.
$(WHEELS)/.ready: $(SOURCES) | $(TEST_VENV)/bin/python
	@mkdir -p $(WHEELS) && rm -f $(WHEELS)/*.whl
	$(TEST_VENV)/bin/python -m pip wheel --quiet --no-deps --wheel-dir $(WHEELS) .
	@touch $@

$(VENV)/.ready: $(WHEELS)/.ready examples/mission_control/requirements.txt | $(VENV)/bin/python
	$(VENV)/bin/pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	$(VENV)/bin/pip install --quiet -r examples/mission_control/requirements.txt
	@touch $@

$(TEST_VENV)/.ready: $(WHEELS)/.ready tests/e2e/requirements.txt examples/mission_control/requirements.txt | $(TEST_VENV)/bin/python
	$(TEST_VENV)/bin/pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	$(TEST_VENV)/bin/pip install --quiet -r examples/mission_control/requirements.txt -r tests/e2e/requirements.txt
	@touch $@

# A package that cannot be installed on this Python is named, and its tests are skipped.
$(AGENTS_VENV)/.ready: $(WHEELS)/.ready tests/e2e/agents.txt | $(AGENTS_VENV)/bin/python
	$(AGENTS_VENV)/bin/pip install --quiet --force-reinstall --no-deps $(WHEELS)/*.whl
	$(AGENTS_VENV)/bin/pip install --quiet -r tests/e2e/agents.txt || \
		grep -v '^#' tests/e2e/agents.txt | while read -r package; do \
			$(AGENTS_VENV)/bin/pip install --quiet --only-binary :all: "$$package" || echo "NOT INSTALLED: $$package"; \
		done
	@touch $@

$(BENCH_VENV)/.ready: $(WHEELS)/.ready tests/bench/setup.sh tests/bench/requirements.txt tests/bench/peers.txt | $(BENCH_VENV)/bin/python
	sh tests/bench/setup.sh $(BENCH_VENV) $(WHEELS)/*.whl
	@touch $@
