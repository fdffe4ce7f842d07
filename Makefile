# The two commands of the README are `make run` and `make test`; they need Python 3.11+, pip and make.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONFIG ?= config.toml
JOBS ?= 1
# One more than there are cores: many tests wait rather than compute.
WORKERS ?= $(shell expr $$(nproc) + 1)
FAST := not process and not faults and not mutants

.DEFAULT_GOAL := help
.PHONY: help run serve test check format lint types fast seeded process workers simulate test-faults kills signals outages mutants bench bench-check soak clean

help: ## What there is
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "%-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(VENV)/.runtime ## The demo: sandbox, engine, 3,000 attendees, and the proof (about 20 seconds)
	$(BIN)/rainfocus-engine demo

serve: $(VENV)/.runtime ## The engine with config.toml (CONFIG=PATH for another)
	$(BIN)/rainfocus-engine serve --config $(CONFIG)

test: check seeded process ## Everything a contributor needs (under ten minutes)

check: format lint types fast ## Format, lint, types and the fast tests (under two minutes)

format: $(VENV)/.development
	$(BIN)/ruff format --check .

lint: $(VENV)/.development
	$(BIN)/ruff check .

types: $(VENV)/.development
	$(BIN)/mypy

fast: $(VENV)/.development
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "$(FAST) and not seeded"

seeded: $(VENV)/.development ## Do the tests find the bugs that were put in? (half a minute; also `make mutants`)
	$(BIN)/python -m pytest -q -n $(WORKERS) --dist worksteal -m "$(FAST) and seeded"

process: $(VENV)/.development ## Tests with real processes (three and a half minutes)
	$(BIN)/python -m pytest -q -n 2 --dist loadfile -m "process and not faults" --timeout 180

workers: $(VENV)/.development ## The same calls and the same kills with two ingress workers (about five minutes)
	ENGINE_WORKERS=2 $(BIN)/python -m pytest -q tests/service tests/assembly tests/engine/test_arrival.py tests/process -m "not faults" --timeout 300

RUNS ?= 1000
FIRST ?= 0
SEED ?=
KNOBS ?=
simulate: $(VENV)/.development ## The simulation: RUNS=100000 [FIRST=0] for many, SEED=17 for one again (1,000 take 30 s)
	$(BIN)/python tests/simulation/simulate.py --runs $(RUNS) --first $(FIRST) --knobs '$(KNOBS)' $(if $(SEED),--seed $(SEED))

test-faults: $(VENV)/.development ## Faults, full disks, 9,000 cancellations, 1,000 kills, 100 stops (about 40 minutes; KILLS=100 SIGNAL_ROUNDS=10: ten)
	$(BIN)/python -m pytest -q -m faults --timeout 600

mutants: $(VENV)/.mutants ## Does every bug fail a test? (about 15 minutes; FILES=engine/core/pace.py: one file)
	$(BIN)/python tests/mutants/mutate.py --jobs $(JOBS) $(FILES)
ifndef FILES
	$(BIN)/python -m pytest -q -m mutants
endif

kills: $(VENV)/.development ## Of these only kill -9 (KILLS=1000: 20 minutes; KILL_SEED=1, KILL_LANES=3 at a time, KILL_SECONDS=)
	$(BIN)/python -m pytest -q tests/faults/test_kill_cycles.py

signals: $(VENV)/.development ## Of these only SIGTERM, SIGHUP, SIGSTOP (SIGNAL_ROUNDS=100: eight minutes; SIGNAL_SEED=1)
	$(BIN)/python -m pytest -q tests/faults/test_rounds_of_signals.py

outages: $(VENV)/.development ## What goes wrong on the other side, with a figure for each (about two minutes)
	OUTAGE_FIGURES=1 $(BIN)/python -m pytest -q tests/outages --timeout 180

FULL ?=
RESULT ?= build/bench
bench: $(VENV)/.runtime ## Speed beside floors and peers, as a page and as JSON (under ten minutes; FULL=1: every scenario, about an hour)
	@mkdir -p $(RESULT)
	$(BIN)/python -m benchmarks run $(if $(FULL),--all --seconds 4,--seconds 2) --json $(RESULT)/result.json --html $(RESULT)/report.html

BASE ?= HEAD~1
NAMES ?=
bench-check: $(VENV)/.runtime ## Is this checkout slower than BASE=REVISION? In turns, exit 1 if it is (about four minutes; NAMES='array-10')
	@mkdir -p $(RESULT)
	$(BIN)/python -m benchmarks check $(BASE) $(NAMES) --json $(RESULT)/check.json --html $(RESULT)/check.html

SOAK_SECONDS ?= 1800
soak: $(VENV)/.runtime ## Load with faults for long: does anything grow? (SOAK_SECONDS=1800)
	@mkdir -p $(RESULT)
	$(BIN)/python -m benchmarks soak --for $(SOAK_SECONDS) --json $(RESULT)/soak.json --html $(RESULT)/soak.html

clean: ## Remove what was made here
	rm -rf $(VENV) .bench-venv .bench-debian .demo .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.runtime: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.development: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	@touch $@ $(VENV)/.runtime

$(VENV)/.mutants: pyproject.toml | $(VENV)/.development
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[mutants]"
	@touch $@
