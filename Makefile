# make install demo test check bench bench-gpu; each sets up .venv by itself when it is missing or out of date.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# Tests run in one process per core, 4 at most; WORKERS=0 runs them one after the other in one process.
WORKERS ?= logical
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help install demo test test-slow check format bench bench-gpu clean

help:
	@echo "make install    .venv with cxrdist and its exact tested dependencies"
	@echo "make demo       the whole chain on this machine, into $(DEMO)"
	@echo "make test       every test that can run on this machine"
	@echo "make test-slow  the long proofs as well"
	@echo "make check      format, lint, types, import rules, spelling"
	@echo "make bench      CPU benchmarks; make bench-gpu the same on a GPU machine"

install: $(VENV)/.installed

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "cxrdist needs Python 3.11 or newer; set PYTHON=python3.x" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || { echo "python3 -m venv failed; on Debian or Ubuntu: apt-get install python3-venv" >&2; exit 2; }

$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dicom]'
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dicom,dev]'
	@touch $@

$(VENV)/.installed-bench: $(VENV)/.installed-dev
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dicom,dev,bench]'
	@touch $@

demo: install
	$(BIN)/cxrdist demo --out $(DEMO)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --maxprocesses 4 --dist loadgroup --no-loadscope-reorder $(ARGS)

test-slow: $(VENV)/.installed-dev
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/codespell

format: $(VENV)/.installed-dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(VENV)/.installed-bench
	$(BIN)/python -m benches

bench-gpu: $(VENV)/.installed-bench
	$(BIN)/python -m benches --gpu

clean:
	rm -rf $(VENV) runs .pytest_cache .ruff_cache .hypothesis
