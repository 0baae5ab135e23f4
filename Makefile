# fusionnode. Everything here sets up what it needs first: Python 3.11 or newer, make and gcc are enough.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types imports pytest tests-of-tracking tests-of-the-rest bench picture lock clean

help: ## what there is to make
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY) ## virtual environment, locked dependencies, compiled kernels

$(READY): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "needs Python 3.11 or newer, found $$($(PYTHON) --version)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/fusionnode warmup
	@touch $@

demo: $(READY) ## radar and telescope emulators, node and subscriber, live in this terminal
	@$(BIN)/fusionnode demo

test: lint types imports pytest ## all of lint, types, import rules and tests

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy

imports: $(READY)
	$(BIN)/lint-imports

pytest: $(READY)
	@echo "tests: two halves side by side; each is shown when it has ended"
	@$(MAKE) --no-print-directory --keep-going --jobs=2 --output-sync=target tests-of-tracking tests-of-the-rest

tests-of-tracking: $(READY)
	$(BIN)/python -m pytest tests/track tests/pipeline

tests-of-the-rest: $(READY)
	$(BIN)/python -m pytest tests --ignore=tests/track --ignore=tests/pipeline

bench: $(READY) ## benchmarks, and ratios against plain filterpy and bare pyzmq
	$(BIN)/python -m pytest tests/bench --benchmark-only -o addopts= -q
	$(BIN)/python tests/bench/ratios.py

picture: $(READY) ## draw the README's picture of the live view anew
	$(BIN)/fusionnode demo --no-view --duration 22 --picture docs/live_view.svg

lock: $(READY) ## resolve the dependencies anew
	$(BIN)/python -m pip install --quiet pip-tools
	$(BIN)/pip-compile --quiet --extra node --extra dev --generate-hashes --strip-extras --allow-unsafe \
		--no-header --no-emit-options -o requirements.lock pyproject.toml

clean: ## all that can be made again
	rm -rf $(VENV) build dist firmware_interfaces/build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .benchmarks
