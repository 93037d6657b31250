# `make help` has the verbs. On a fresh machine each of them first makes .venv (Python 3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# The data path is compiled by a rule of its own, in place and only when its sources are newer.
INSTALL := SLUICEWAY_COMPILE=never $(PIP) --no-build-isolation -e
# What is compiled has constants and types of the modules in it that it imports, and not those of setup.py alone.
SOURCES := $(shell find proxy observability -name '*.py')
export PYTHONUNBUFFERED := 1
# Of `make run`: other addresses for a machine on which these are taken.
LISTEN ?= 127.0.0.1:8080
CONTROL ?= 127.0.0.1:9090
UPSTREAM ?= 127.0.0.1:9101
# true: what is asked and answered is in its lines, and in the spans for an OTEL_EXPORTER_OTLP_ENDPOINT.
RECORD ?= false
# Of `make backends`: what was last seen to work. rotel has no release but such ones.
PHOENIX_VERSION := 20.26.1
ROTEL_VERSION := 0.0.1a15

.DEFAULT_GOAL := run
.PHONY: help run test test-python check compiled python bench bench-all backends screenshots format clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

run: .venv/ready-to-run .venv/compiled  ## the gateway on :8080 and control on :9090, with the simulated upstream or the real DashScope
	@DEMO_RECORD=$(RECORD) $(BIN)/python -m benchmarks.demo --listen $(LISTEN) --control $(CONTROL) --upstream $(UPSTREAM)

test: .venv/ready-to-develop .venv/compiled  ## the whole test suite
	@$(BIN)/python -m pytest

# What compiling could change, and what only Python does: frames that hold each other, a recursion that is counted.
UNCOMPILED := tests/test_tidy.py tests/proxy/upstream tests/proxy/test_no_cycles.py tests/proxy/test_tape.py \
	tests/proxy/test_edge.py tests/proxy/test_passage.py tests/observability/test_emitter.py \
	tests/observability/scanners/test_requests.py tests/e2e/test_fidelity.py tests/e2e/test_fallback.py

test-python: .venv/ready-to-develop python  ## the data path's tests with nothing compiled
	@$(BIN)/python -m pytest $(UNCOMPILED)

check: .venv/ready-to-develop  ## lint, formatting, types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/ready-to-develop .venv/compiled  ## benchmarks, with wrk (and nginx, to compare with)
	@$(BIN)/python -m benchmarks.observer
	@$(BIN)/python -m benchmarks.bench

bench-all: .venv/ready-to-develop .venv/compiled  ## this gateway beside others, under every workload: 40 minutes; see benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks.contest $(CONTEST)

backends: .venv/ready-to-develop .venv/compiled .venv-backends/ready  ## what Phoenix and rotel make of our traces and metrics (900 MB)
	@REAL_BACKENDS=.venv-backends/bin $(BIN)/python -m pytest tests/backends

screenshots: .venv/ready-to-develop .venv/compiled .venv-backends/ready  ## docs/images, taken anew (wants Chromium)
	@REAL_BACKENDS=.venv-backends/bin $(BIN)/python -m docs.screenshots.make

compiled: .venv/ready-to-run .venv/compiled  ## the data path, compiled anew where its sources changed

python:  ## the data path as plain Python again, to work on it: an edit counts at once
	@rm -rf build .venv/compiled
	@find proxy observability -name '*.so' -delete

format: .venv/ready-to-develop  ## formatting, and what lint can mend by itself
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:  ## back to a fresh checkout
	find proxy observability -name '*.so' -delete
	rm -rf .venv .venv-backends build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .sluiceway .bench

# Two stamps: who only wants to see it run does not wait for linters and four SDKs. A second call finds them up to date.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv

.venv/ready-to-run: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) setuptools mypy
	$(INSTALL) .
	@touch $@

.venv/ready-to-develop: pyproject.toml constraints.txt | .venv/bin/python
	$(PIP) setuptools mypy
	$(INSTALL) '.[test,dev]'
	@touch $@ .venv/ready-to-run

# Without a C compiler all stays Python, and slower.
.venv/compiled: setup.py pyproject.toml constraints.txt $(SOURCES) | .venv/ready-to-run
	@echo 'The data path is compiled, which takes a minute.'
	@find proxy observability -name '*.so' -delete
	@rm -rf build && mkdir build
	@$(BIN)/python setup.py build_ext --inplace > build/log 2>&1 || { tail build/log; exit 1; }
	@grep '^sluiceway:' build/log || true
	@touch $@

.venv-backends/bin/python:
	$(PYTHON) -m venv .venv-backends

.venv-backends/ready: Makefile | .venv-backends/bin/python
	.venv-backends/bin/python -m pip install --quiet --disable-pip-version-check \
		arize-phoenix==$(PHOENIX_VERSION) rotel==$(ROTEL_VERSION)
	@touch $@
