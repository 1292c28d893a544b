# Everything a bare machine needs is Python 3.11+, pip and make. `make` alone lists the targets.
PYTHON ?= python3
BIN := .venv/bin
CONFIG ?= quickstart

# Several one-thread processes are faster than threads that fight over the same cores.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM ?= false
# Ray warns at every start until it is told whether a task that asked for no GPU may see one.
export RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO ?= 0
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

FOLDERS := workflows datasets models studio actors pipelines serving

.PHONY: help env types world quickstart test test-all lint bench clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: .venv/ready  ## make .venv with flowtailor and its tools in it

.venv/ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) is too old: flowtailor needs Python 3.11 or newer; run make PYTHON=python3.12 ..." >&2; exit 2; }
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --progress-bar on -e '.[dev]'
	@touch $@

world: env  ## install the embedded engine and fetch the weights (checked, once)
	$(BIN)/flowtailor studio install

quickstart: world  ## the whole loop on this machine, no GPU needed: ends in runs/quickstart/report
	$(BIN)/flowtailor run --config $(CONFIG)

test: world  ## all tests but the slow ones, within 10 minutes on 2 cores
	$(BIN)/python -m pytest -n 2 --dist loadgroup

test-all: world  ## the slow tests too: hundreds of random designs drawn, more kills
	$(BIN)/python -m pytest -m ''

# Pyright resolves imports by where files lie: links show it the layout that a wheel has.
types: env
	@mkdir -p build/types/flowtailor
	@cd build/types/flowtailor && ln -sfn $(addprefix ../../../,$(FOLDERS)) $(addprefix ../../../,$(wildcard flowtailor/*.py)) .

lint: types  ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

bench: world  ## the ratios of docs/BENCHMARKS.md
	$(BIN)/python benchmarks/run_all.py

clean:  ## remove the environment and caches; runs/ stays
	rm -rf .venv build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
