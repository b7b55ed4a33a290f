# One command each. Needs python3.11 or later and make; everything else comes with `make setup`.
# Asked, not looked up: a version manager's shim is on the path for versions that it cannot run.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed
FAST := $(wildcard tests/unit tests/golden tests/properties tests/contract tests/portal)
.DEFAULT_GOAL := help
TOOLS := build/tools/bin
PEERS := build/peers/bin
.PHONY: help setup demo test check faults bench bench-peers lint format up down try docs pictures audit sbom secrets lock

help: ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  \1\t/' | expand -t 15

setup: $(STAMP) ## the virtual environment in .venv, from requirements.lock

# --require-hashes: what is installed is what was locked. --no-deps: pip must not look further than the lock.
$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or later is needed on the path; or set PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --config-settings editable_mode=compat -e .
	@touch $@

demo: $(STAMP) ## the main job in one go, on a local Kafka and Valkey
	$(BIN)/refstream demo

test: $(STAMP) lint ## everything: ruff, mypy, all tests
	$(BIN)/pytest

check: $(STAMP) lint ## the inner loop, on all cores: ruff, mypy, tests without Kafka
	$(BIN)/pytest -q -m "not infra" -n auto $(FAST)

faults: $(STAMP) ## the long run of tests/faults: hours
	REFSTREAM_FAULTS=long $(BIN)/pytest -q tests/faults tests/properties/test_rebuild.py tests/e2e/test_crashes.py \
	  tests/e2e/test_clusters.py
	REFSTREAM_LONG=1 $(BIN)/pytest -q -m long tests/contract/test_fuzz.py tests/e2e/test_fuzz_http.py

bench: $(STAMP) ## all benchmarks at a small size; `refstream bench --help` has each at its own
	$(BIN)/refstream bench

bench-peers: $(STAMP) build/peers/.installed ## W1 beside Kafka Streams, Faust, PostgreSQL and more; ARGS='--help'
	$(BIN)/python bench/peers/run.py $(ARGS)

build/peers/.installed: requirements-peers.lock
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or later is needed on the path; or set PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(PEERS)/python || $(PYTHON) -m venv build/peers
	$(PEERS)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-peers.lock
	@touch $@

lint: $(STAMP) ## ruff and mypy --strict
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(STAMP) ## formats, and mends what ruff can mend
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

up: $(STAMP) ## the local stack, in the background
	$(BIN)/refstream up --detach

down: $(STAMP) ## stops it
	$(BIN)/refstream down

try: $(STAMP) ## docker-compose.yml, built, started, scaled, killed and rolled; ARGS='--help'
	PYTHONPATH=. $(BIN)/python deploy/try/run.py $(ARGS)

docs: $(STAMP) ## regenerates schemas/generated, deploy/security and what is generated of docs/
	$(BIN)/python -m schemas.generate

pictures: $(STAMP) ## the pictures of docs/pages.md, from a demo in Chromium
	$(BIN)/pytest -q tests/portal/pictures.py

# Tools that no process of ours needs: an environment of their own, from a lock of its own.
build/tools/.installed: requirements-tools.lock
	@test -n "$(PYTHON)" || { echo 'Python 3.11 or later is needed on the path; or set PYTHON=/path/to/python3.11' >&2; exit 1; }
	@test -x $(TOOLS)/python || $(PYTHON) -m venv build/tools
	$(TOOLS)/pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r requirements-tools.lock
	@touch $@

# --strict: what could not be looked up is an error; without it the tool would say that nothing is known.
audit: build/tools/.installed ## known vulnerabilities of all that is locked; needs the network
	$(TOOLS)/pip-audit --strict --disable-pip --require-hashes -r requirements.lock -r requirements-tools.lock
	$(TOOLS)/pip-audit --strict --disable-pip --require-hashes -r requirements-peers.lock

sbom: build/tools/.installed ## the bill of materials of what runs: build/sbom.json, CycloneDX
	$(TOOLS)/cyclonedx-py requirements requirements-runtime.lock --pyproject pyproject.toml --mc-type application \
	  --output-reproducible --output-format JSON --output-file build/sbom.json

# Without a baseline: what only looks like a secret says so in its line. Generated samples and results of long runs
# (commit ids) cannot.
secrets: build/tools/.installed ## secrets in tracked files
	git ls-files -z | xargs -0 $(TOOLS)/detect-secrets-hook --no-verify --exclude-files '^tests/(contract/samples|faults/results)/' \
	  --exclude-lines '^secrets'

# Needs uv, and only when a dependency changes. No index addresses: the lock holds names, versions and hashes.
lock: ## writes the lock files anew
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --extra local --extra bench --extra dev pyproject.toml -o requirements.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links -c requirements.lock pyproject.toml -o requirements-runtime.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --group pyproject.toml:tools -o requirements-tools.lock
	uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-annotate --no-header \
	  --no-emit-index-url --no-emit-find-links --group pyproject.toml:peers -o requirements-peers.lock
