# Everything that a contributor does, each step with its own set-up. `make help` lists it.

PYTHON ?= python3
CARGO ?= cargo
PORT ?= 8080
BIND ?= 127.0.0.1:$(PORT)
SOAK_SECONDS ?= 600
# Tests that have a whole form, which takes minutes, beside the short one of `make test`.
SOAKS := tests/soak $(addprefix tests/e2e/test_,balance.py lifecycle_storm.py broken_deploys.py supervisor_killed.py slow_import.py clocks.py forks_in_views.py)
VENV := .venv
TEST_VENV := target/venv
AGENTS_VENV := target/agents-venv
APPLICATIONS_VENV := target/applications-venv
BENCH_VENV := target/bench-venv
WHEELS_VENV := target/wheels-venv
WHEELS := target/wheels
# What the wheel is made of: a change in any of it makes a new one.
SOURCES := Cargo.toml Cargo.lock pyproject.toml $(shell find mcsup-core mcsup-py mcsup-cli -type f -not -name '*.pyc' -not -path '*/fuzz/*' 2>/dev/null)

# Everything that the library has; the wheel is built without.
FEATURES := --features mcsup-core/hyper

export CARGO_TARGET_DIR ?= $(CURDIR)/target
# Where cargo-nextest goes if the machine has none.
export PATH := $(CURDIR)/target/tools/bin:$(PATH)

.DEFAULT_GOAL := help
.PHONY: help run test lint test-rust test-fallback test-packages test-docs api test-e2e test-applications test-pythons soak check-macos \
	publish-check wheels bench clean

# $(call step,WORDS): the first line of each step.
step = @printf '\n== %s\n' '$(1)'
pip = -m pip --quiet --disable-pip-version-check
PYTEST := -m pytest -q -rs

help: ## List the targets and variables
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@awk -F '## ' '/^## [A-Z_]+=/ { printf "  %s\n", $$2 }' $(MAKEFILE_LIST)

# Variables, for `make help`:
## PORT=8080                       run: where the example listens, on 127.0.0.1
## BIND=0.0.0.0:8080               run: the whole address
## MC_RUN=/tmp/mission_control     run: where its pid file and database go; mc.sh reads it too
## PYTEST_ARGS="-k reload"         test-e2e, soak: arguments for pytest
## BENCH_ARGS="--help"             bench: arguments for tests/bench/bench.py
## SOAK_SECONDS=600                soak: seconds of the longest test
## PYTHON=python3.12               the Python to build for and to test with
## PYTHONS="3.11 3.14t"            wheels: only for these
## BASELINE=v0.1.0                 publish-check: the commit that the interface is compared with
## CARGO=cargo                     the cargo to build with

# Where the example has its pid file, log and database. Not for the tests, each of which has a folder of its own.
run: export MC_RUN ?= $(CURDIR)/examples/mission_control/run
run: $(VENV)/.ready ## Build, make .venv, and serve the mission-control example on http://127.0.0.1:8080
	$(call step,mission control at http://$(BIND); Ctrl-C stops it. In another terminal:)
	@echo '   $(if $(filter file,$(origin MC_RUN)),,MC_RUN=$(MC_RUN) )examples/mission_control/mc.sh status     # also reload, stop'
	$(VENV)/bin/mcsup -w 2 -b $(BIND) -p $(MC_RUN)/mission_control.pid --access-logfile - \
		--chdir examples/mission_control server:app

test: lint test-rust test-fallback test-packages test-docs check-macos test-e2e test-applications test-pythons ## Run every check and every test
	$(call step,all checks passed)

lint: ## Format and lints, warnings denied
	$(call step,lint: rustfmt and clippy)
	$(CARGO) fmt --all --check
	$(CARGO) clippy --workspace --all-targets --locked $(FEATURES) -- -D warnings
	$(CARGO) clippy -p mcsup-core --locked -- -D warnings

test-rust: target/.nextest ## Unit and process tests of the crates
	$(call step,test-rust: unit and process tests of the crates)
	$(CARGO) nextest run --workspace --locked $(FEATURES) --no-fail-fast

# Built quickly and with few lives of the policy, which is the same everywhere.
test-fallback: target/.nextest ## The tests of mcsup-core with its portable ways, on Linux too
	$(call step,test-fallback: mcsup-core with its portable ways)
	MCSUP_LIVES=500 RUSTFLAGS="--cfg mcsup_force_fallback" CARGO_TARGET_DIR=$(CARGO_TARGET_DIR)/fallback $(CARGO) nextest run \
		--config 'profile.test.package.mcsup-core.opt-level=0' -p mcsup-core --locked $(FEATURES) --no-fail-fast

test-packages: ## The packages of the crates built alone with the oldest Rust
	$(call step,test-packages: the packages of the crates built alone with the oldest Rust)
	$(PYTHON) tests/packages/check.py

test-docs: ## Documentation and its examples, warnings denied
	$(call step,test-docs: rustdoc and its examples)
	$(CARGO) test --workspace --doc --locked $(FEATURES)
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps --locked $(FEATURES)
	$(PYTHON) tests/public_items.py $(CARGO_TARGET_DIR)/doc

api: ## Write docs/API.md, the list of the public items
	$(CARGO) doc --workspace --no-deps --locked $(FEATURES)
	$(PYTHON) tests/public_items.py $(CARGO_TARGET_DIR)/doc --write

test-e2e: $(TEST_VENV)/.ready $(AGENTS_VENV)/.ready ## The installed wheel, driven as a user drives it
	$(call step,test-e2e: the installed wheel)
	$(TEST_VENV)/bin/python $(PYTEST) tests/e2e tests/conformance tests/soak $(PYTEST_ARGS)

test-applications: $(TEST_VENV)/.ready $(APPLICATIONS_VENV)/.ready ## Applications from PyPI beside gunicorn, also behind nginx
	$(call step,test-applications: applications from PyPI beside gunicorn)
	$(TEST_VENV)/bin/python $(PYTEST) tests/applications $(PYTEST_ARGS)

test-pythons: $(TEST_VENV)/.ready ## The main part of that with each other CPython from 3.10 on that is here
	$(call step,test-pythons: a wheel and the main part of its tests with each other CPython)
	$(TEST_VENV)/bin/python tests/pythons/run.py

soak: $(TEST_VENV)/.ready $(BENCH_VENV)/.ready ## Half an hour: clients of all kinds, storms of reloads, and the rest in full size
	$(call step,soak: half an hour)
	SOAK_SECONDS=$(SOAK_SECONDS) MCSUP_SOAK=1 $(TEST_VENV)/bin/python $(PYTEST) $(SOAKS) $(PYTEST_ARGS)

check-macos: ## Type-check for macOS, without a Mac; alone and as root it installs Debian's Rust for that
	$(call step,check-macos: type check for macOS)
	sh tests/macos/check.sh $(if $(filter $(MAKECMDGOALS),check-macos),--install)

publish-check: target/.cargo-tools ## What a release needs beyond `make test`: cargo-deny, cargo-semver-checks, a dry run
	$(call step,publish-check: dependencies and interface and a dry run)
	sh tests/packages/publish_check.sh $(BASELINE)

wheels: $(WHEELS_VENV)/.ready ## Build and check what PyPI gets: sdist and wheels for each CPython that is here (minutes each)
	$(call step,wheels: sdist and wheels in target/dist)
	$(WHEELS_VENV)/bin/python tests/packages/wheels.py $(PYTHONS)

bench: $(BENCH_VENV)/.ready ## mcsup beside its peers, which it installs from PyPI; needs wrk (an hour; BENCH_ARGS)
	$(call step,bench: mcsup beside its peers)
	$(CARGO) build --release --locked -p mcsup-py --example floor
	$(BENCH_VENV)/bin/python tests/bench/bench.py $(BENCH_ARGS)

clean: ## Remove everything that was built
	rm -rf target $(VENV)

target/.nextest:
	@mkdir -p target
	$(call step,cargo-nextest: installed below target where there is none)
	$(CARGO) nextest --version >/dev/null 2>&1 || $(CARGO) install cargo-nextest --locked --root $(CURDIR)/target/tools
	@touch $@

target/.cargo-tools:
	@mkdir -p target
	$(call step,cargo-deny and cargo-semver-checks: installed below target where they are missing)
	for tool in deny semver-checks; do \
		$(CARGO) $$tool --version >/dev/null 2>&1 || $(CARGO) install cargo-$$tool --locked --root $(CURDIR)/target/tools || exit 1; \
	done
	@touch $@

# Debian's Python has no pip outside of a virtual environment.
%/bin/python:
	$(call step,$*: a virtual environment)
	$(PYTHON) -m venv $*

# One build of the wheel, for the example and for the tests. Verbose, because cargo's progress is part of it.
$(WHEELS)/.ready: $(SOURCES) | $(TEST_VENV)/bin/python
	$(call step,wheel: a release build; it takes minutes the first time)
	@mkdir -p $(WHEELS) && rm -f $(WHEELS)/*.whl
	$(TEST_VENV)/bin/python -m pip --disable-pip-version-check wheel --verbose --no-deps --wheel-dir $(WHEELS) .
	@touch $@

$(VENV)/.ready: $(WHEELS)/.ready examples/mission_control/requirements.txt | $(VENV)/bin/python
	$(call step,$(VENV): mcsup and the packages of the example)
	$(VENV)/bin/python $(pip) install --force-reinstall --no-deps $(WHEELS)/*.whl
	$(VENV)/bin/python $(pip) install -r examples/mission_control/requirements.txt
	@touch $@

$(TEST_VENV)/.ready: $(WHEELS)/.ready tests/e2e/requirements.txt examples/mission_control/requirements.txt | $(TEST_VENV)/bin/python
	$(call step,$(TEST_VENV): mcsup and the packages of the tests)
	$(TEST_VENV)/bin/python $(pip) install --force-reinstall --no-deps $(WHEELS)/*.whl
	$(TEST_VENV)/bin/python $(pip) install -r examples/mission_control/requirements.txt -r tests/e2e/requirements.txt
	@touch $@

# A package that cannot be installed on this Python is named, and its tests are skipped.
$(AGENTS_VENV)/.ready: $(WHEELS)/.ready tests/e2e/agents.txt | $(AGENTS_VENV)/bin/python
	$(call step,$(AGENTS_VENV): mcsup and the agents that its tests start it under)
	$(AGENTS_VENV)/bin/python $(pip) install --force-reinstall --no-deps $(WHEELS)/*.whl
	$(AGENTS_VENV)/bin/python $(pip) install -r tests/e2e/agents.txt || \
		grep -v '^#' tests/e2e/agents.txt | while read -r package; do \
			$(AGENTS_VENV)/bin/python $(pip) install --only-binary :all: "$$package" || echo "NOT INSTALLED: $$package"; \
		done
	@touch $@

$(APPLICATIONS_VENV)/.ready: $(WHEELS)/.ready tests/applications/applications.txt | $(APPLICATIONS_VENV)/bin/python
	$(call step,$(APPLICATIONS_VENV): mcsup and gunicorn and the applications that both serve)
	$(APPLICATIONS_VENV)/bin/python $(pip) install --force-reinstall --no-deps $(WHEELS)/*.whl
	$(APPLICATIONS_VENV)/bin/python $(pip) install -r tests/applications/applications.txt
	@touch $@

$(WHEELS_VENV)/.ready: tests/packages/wheels.txt | $(WHEELS_VENV)/bin/python
	$(call step,$(WHEELS_VENV): what builds and checks wheels)
	$(WHEELS_VENV)/bin/python $(pip) install -r tests/packages/wheels.txt
	@touch $@

$(BENCH_VENV)/.ready: $(WHEELS)/.ready tests/bench/setup.sh tests/bench/requirements.txt tests/bench/peers.txt | $(BENCH_VENV)/bin/python
	$(call step,$(BENCH_VENV): mcsup and its peers)
	sh tests/bench/setup.sh $(BENCH_VENV) $(WHEELS)/*.whl
	@touch $@
