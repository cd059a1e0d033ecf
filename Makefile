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

# uv downloads and unpacks on all cores, in a quarter of pip's CPU time; pip does it where uv cannot (no build of it for this
# machine, a mirror whose settings only pip reads). Either says a line for each large download; all that it says is in
# $(INSTALL_LOG). uv's cache lies in .venv, where it costs nothing (hard links), until all is installed.
# What RARE matches is not compiled beforehand: little of it is ever imported.
RARE := /(tests?|testing|databricks|llm|mlflow|moto|networkx|pip|pygments|rllib|serve|setuptools|wandb|_inductor)/
INSTALL_LOG := $(VENV)/install.log
comma := ,
LARGE := /^ *(Downloading|Using cached) .*\(([0-9]{2,}(\.[0-9]+)? ?Mi?B|[0-9.]+ ?Gi?B)\)/{s/^ */  /;p}
STAGES := s/^(Resolved|Prepared|Installed) ([0-9]+ packages).*/  \1 \2/p; s/^Installing collected packages.*/  unpacking the packages, a minute or two/p
define install_packages
set -o pipefail; echo "cxrdist[$(1)] and what it needs, as in constraints.txt (in full: $(INSTALL_LOG))"; \
{ $(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt uv \
&& UV_CACHE_DIR=$(VENV)/uv-cache $(BIN)/uv pip install --system-certs --python $(BIN)/python --constraint constraints.txt --editable '.[$(1)]'; } 2>&1 | tee $(INSTALL_LOG) | sed -unE -e '$(LARGE)' -e '$(STAGES)' \
|| { echo "uv could not (see $(INSTALL_LOG)); pip goes on"; mv $(INSTALL_LOG) $(VENV)/uv.log; \
$(BIN)/python -m pip install --no-compile --progress-bar off --constraint constraints.txt --editable '.[$(1)]' 2>&1 \
| tee $(INSTALL_LOG) | sed -unE -e '$(LARGE)' -e '$(STAGES)' -e '/^ *(ERROR|error)/p'; } \
|| { echo "the installation failed; the end of $(INSTALL_LOG):"; tail -n 15 $(INSTALL_LOG); exit 1; } >&2; \
rm -rf $(VENV)/uv-cache; \
echo "compiling the packages"; $(BIN)/python -m compileall -qq -j 0 -x '$(RARE)' $(VENV)/lib || true
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

# One installation of what is asked: whoever tests needs no installation without the tools before.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call install_packages,dicom)
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call install_packages,dicom$(comma)dev)
	@touch $(VENV)/.installed $@

$(VENV)/.installed-bench: pyproject.toml constraints.txt | $(VENV)/bin/python
	@$(call install_packages,dicom$(comma)dev$(comma)bench)
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
