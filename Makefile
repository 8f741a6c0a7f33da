# make demo      set up .venv, compile examples/alibi.attn, verify it
# make test      set up .venv, run the tests (no GPU needed)
# make help      every target
#
# PYTHON=…  chooses the interpreter for .venv     JOBS=…  parallel test processes     ARGS=…  more arguments for pytest

VENV  ?= .venv
BIN   := $(VENV)/bin
STAMP := $(VENV)/.attndsl-installed
JOBS  ?= 2
ARGS  ?=

# One thread to a process: tests run side by side, and float sums come out in the same order everywhere.
export OMP_NUM_THREADS ?= 1

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint types slow gpu format golden docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## (.*)/  make \1	\2/' | expand -t 18

# An interpreter counts only if it runs: version managers leave launchers for versions that are not active.
$(STAMP): pyproject.toml constraints.txt
	@set -e; python="$(PYTHON)"; \
	if [ -z "$$python" ]; then \
	  for p in python3.11 python3.12 python3.13 python3.14 python3; do \
	    if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$p; break; fi; \
	  done; \
	fi; \
	if [ -z "$$python" ]; then echo "attndsl needs Python 3.11 or newer on PATH (or: make PYTHON=/path/to/python)" >&2; exit 1; fi; \
	if ! [ -x $(BIN)/python ]; then echo "creating $(VENV) with $$python"; $$python -m venv $(VENV); fi
	@echo "installing attndsl and its tools into $(VENV) (the first time takes a few minutes)"
	@$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[dev]" || { \
	  echo "the versions in constraints.txt cannot be had together here; taking what pip resolves without them"; \
	  $(BIN)/python -m pip install --quiet -e ".[dev]"; }
	@touch $(STAMP)

setup: $(STAMP) ## create .venv and install into it

demo: $(STAMP) ## compile examples/alibi.attn for sm_80 and sm_90, then verify it against float64
	$(BIN)/attndsl compile examples/alibi.attn --out build/demo/alibi --target sm_80 --target sm_90
	$(BIN)/attndsl verify examples/alibi.attn

test: $(STAMP) ## all tests that need no GPU and are not slow
	$(BIN)/python -m pytest -n $(JOBS) $(ARGS)

slow: $(STAMP) ## the slow tests
	@if $(BIN)/python -m pytest --collect-only -q -m "slow and not gpu" $(ARGS) >/dev/null 2>&1 || [ $$? -ne 5 ]; then \
	  $(BIN)/python -m pytest -n $(JOBS) -m "slow and not gpu" --timeout 1800 $(ARGS); \
	else echo "no slow tests"; fi

gpu: $(STAMP) ## the tests that need an NVIDIA GPU
	$(BIN)/python -m pytest -m gpu $(ARGS)

lint: $(STAMP) ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## mypy, strict
	$(BIN)/mypy

format: $(STAMP) ## rewrite the sources the way lint wants them
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

golden: $(STAMP) ## rewrite the golden kernels and the generated pages of the docs; review the diff
	$(BIN)/python docs/generate.py
	$(BIN)/python -m pytest -n $(JOBS) tests/golden --update-golden $(ARGS)

docs: $(STAMP) ## build the documentation site into site/
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[docs]"
	$(BIN)/mkdocs build --strict

clean: ## remove what the targets built, .venv included
	rm -rf $(VENV) build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis
