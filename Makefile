# make install demo test check bench bench-gpu; each sets up .venv by itself when it is missing or out of date.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO ?= runs/demo
# Tests run in one process more than there are cores, 4 at most, since some of them wait for a cluster most of their time;
# WORKERS=0 runs them one after the other in one process.
WORKERS ?= $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
export PIP_DISABLE_PIP_VERSION_CHECK = 1

# pip with a line for each large download and each stage; all that it says is in $(PIP_LOG). pip compiles every module on
# one core, the tests of every package too, for longer than all else that it does: so it is compiled afterwards, on all cores.
PIP_LOG := $(VENV)/pip.log
comma := ,
define pip_install
set -o pipefail; echo "pip: cxrdist[$(1)] and what it needs, as in constraints.txt (in full: $(PIP_LOG))"; \
$(BIN)/python -m pip install --no-compile --progress-bar off --constraint constraints.txt --editable '.[$(1)]' 2>&1 \
| tee $(PIP_LOG) | sed -unE -e '/^ *(Downloading|Using cached) .*\(([0-9]{2,}(\.[0-9]+)? MB|[0-9.]+ GB)\)/{s/^ */pip: /;p}' \
-e 's/^Installing collected packages.*/pip: unpacking the packages, a minute or two/p' \
-e 's/^Successfully installed.*/pip: done/p' -e '/^ *(ERROR|error)/p' \
|| { echo "pip failed; the end of $(PIP_LOG):"; tail -n 15 $(PIP_LOG); exit 1; } >&2; \
echo "compiling the packages"; $(BIN)/python -m compileall -qq -j 0 -x '/(tests?|testing)/' $(VENV)/lib || true
endef

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

# One run of pip for what is asked: whoever tests needs no installation without the tools before.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call pip_install,dicom)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call pip_install,dicom$(comma)dev)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call pip_install,dicom$(comma)dev$(comma)bench)
	@touch $(VENV)/.installed $(VENV)/.installed-dev $@

demo: install
	$(BIN)/cxrdist demo --out $(DEMO)

test: $(VENV)/.installed-dev
	$(BIN)/python -m pytest -m 'not slow' -n $(WORKERS) --maxprocesses 4 --dist loadscope --no-loadscope-reorder $(ARGS)

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
