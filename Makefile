# Verbs: run test check bench bench-all backends screenshots format clean. On a fresh machine each of them first makes
# .venv (Python 3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e
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
.PHONY: help run test check bench bench-all backends screenshots format clean

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/make \1	\2/p' $(MAKEFILE_LIST)

run: .venv/ready-to-run  ## the gateway on :8080 and control on :9090, with the simulated upstream or the real DashScope
	@DEMO_RECORD=$(RECORD) $(BIN)/python -m benchmarks.demo --listen $(LISTEN) --control $(CONTROL) --upstream $(UPSTREAM)

test: .venv/ready-to-develop  ## the whole test suite
	@$(BIN)/python -m pytest

check: .venv/ready-to-develop  ## lint, formatting, types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: .venv/ready-to-develop  ## benchmarks, with wrk (and nginx, to compare with)
	@$(BIN)/python -m benchmarks.observer
	@$(BIN)/python -m benchmarks.bench

bench-all: .venv/ready-to-develop  ## this gateway beside others, under every workload: 40 minutes; see benchmarks/RESULTS.md
	@$(BIN)/python -m benchmarks.contest $(CONTEST)

backends: .venv/ready-to-develop .venv-backends/ready  ## what Phoenix and rotel make of our traces and metrics (900 MB)
	@REAL_BACKENDS=.venv-backends/bin $(BIN)/python -m pytest tests/backends

screenshots: .venv/ready-to-develop .venv-backends/ready  ## docs/images, taken anew (wants Chromium)
	@REAL_BACKENDS=.venv-backends/bin $(BIN)/python -m docs.screenshots.make

format: .venv/ready-to-develop  ## formatting, and what lint can mend by itself
	@$(BIN)/ruff format . && $(BIN)/ruff check --fix .

clean:  ## back to a fresh checkout
	rm -rf .venv .venv-backends build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .sluiceway .bench

# Two stamps: who only wants to see it run does not wait for linters and four SDKs. A second call finds them up to date.
.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=…")'
	$(PYTHON) -m venv .venv

.venv/ready-to-run: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) .
	@touch $@

.venv/ready-to-develop: pyproject.toml constraints.txt | .venv/bin/python
	$(INSTALL) '.[test,dev]'
	@touch $@ .venv/ready-to-run

.venv-backends/bin/python:
	$(PYTHON) -m venv .venv-backends

.venv-backends/ready: Makefile | .venv-backends/bin/python
	.venv-backends/bin/python -m pip install --quiet --disable-pip-version-check \
		arize-phoenix==$(PHOENIX_VERSION) rotel==$(ROTEL_VERSION)
	@touch $@
