# Targets are single words; each works on a fresh checkout.
SHELL := /bin/sh
PYTHON ?= python3
BASE ?=
VERSION :=
VENV := .venv
BIN := $(VENV)/bin
PACKAGES := $(wildcard packages/*)
SOURCES := pyproject.toml constraints.txt integration/pyproject.toml $(addsuffix /pyproject.toml,$(PACKAGES)) $(wildcard packages/*/scripts/*)
STAMP := $(VENV)/.installed

.PHONY: setup system demo test lint bench soak istio images sync clean help

help:
	@echo 'make demo    two programs in a mesh, on this machine, in one minute'
	@echo 'make test    install what is missing, and run every tier of tests that this machine allows'
	@echo 'make lint    ruff, mypy, import rules'
	@echo 'make bench   start-up, tunnels, the gate and more, each beside a peer'
	@echo 'make soak    the long forms of the tests'
	@echo 'make istio   krun beside a version of Istio (VERSION=v0.0.0-…), and the tests of a mesh with it'
	@echo 'make images  the golden image and the one of hgate, out of this tree (BASE=IMAGE: on that one)'
	@echo 'make sync    copy the files that are the same in every package'
	@echo 'make clean   remove what was built here'

setup: system $(STAMP)
	@$(BIN)/python -m compileall -q packages/*/src integration/src

system:
	@integration/setup.sh $(PYTHON)

$(STAMP): $(SOURCES) | system
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt uv; }
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -c constraints.txt --group dev \
		$(foreach p,$(PACKAGES),-e $(p)) -e integration
	@touch $@

sync:
	@for p in packages/*/src/*/; do for f in errors.py log.py; do \
		cmp -s packages/krun-launch/src/krun_launch/$$f $$p$$f || cp packages/krun-launch/src/krun_launch/$$f $$p$$f; done; done
	@for p in krun-iptables/src/krun_iptables krun-launch/src/krun_launch; do cp packages/krun-discover/src/krun_discover/record.py packages/$$p/record.py; done

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/mypy packages/*/src integration/src
	@$(BIN)/lint-imports

demo: setup
	@$(BIN)/python -m krun_testbed.demo

test: setup
	@$(BIN)/python -m krun_testbed.tiers

bench: setup
	@$(BIN)/python -m krun_testbed.bench

soak: setup
	@KRUN_SOAK=1 HYPOTHESIS_PROFILE=soak $(BIN)/python -m krun_testbed.tiers --timeout=3600

istio: setup
	@$(BIN)/python -m krun_testbed.istio_step $(if $(VERSION),--version '$(VERSION)')
	@ISTIO='$(VERSION)' $(BIN)/python -m krun_testbed.tiers --tier mesh

images: setup
	@$(BIN)/python -m krun_testbed.images --base '$(BASE)'

clean:
	@rm -rf $(VENV) dist packages/*/dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache uv.lock
	@find . \( -name __pycache__ -o -name '*.egg-info' \) -type d -prune -exec rm -rf {} +
