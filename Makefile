# isoflop's commands for developers and for the first run. CI calls the same targets.
#   make pretrain              set up, then run the main job (ARGS="--time 2m" passes options)
#   make test | test-slow      the tests; lint, format, types, docs: the checks
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CORE := $(VENV)/.core
DEV := $(VENV)/.dev
BEAM_VENV := .venv-beam
BEAM := $(BEAM_VENV)/.ready
TPU_VENV := .venv-tpu
CUDA_VENV := .venv-cuda
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

.DEFAULT_GOAL := help
.PHONY: help setup setup-dev setup-beam setup-tpu setup-cuda pretrain test test-slow lint format types bench docs golden clean

help:
	@sed -n 's/^\([a-z][a-z-]*\):.*## /\1 - /p' Makefile

$(CORE): requirements/core.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "error: $(PYTHON) is not Python 3.11 or newer; name one: make setup PYTHON=python3.12" >&2; \
	  exit 1; }
	test -x $(BIN)/pip || $(PYTHON) -m venv --clear $(VENV)
	$(PIP) -r requirements/core.txt
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): $(CORE) requirements/dev.txt requirements/harness.txt requirements/huggingface.txt
	$(PIP) -r requirements/dev.txt
	@touch $@

# Workers that Beam starts find isoflop by the .pth file, wherever they start.
$(BEAM): requirements/beam.txt
	test -x $(BEAM_VENV)/bin/pip || $(PYTHON) -m venv --clear $(BEAM_VENV)
	$(BEAM_VENV)/bin/python -m pip install --quiet --disable-pip-version-check -r requirements/beam.txt
	$(BEAM_VENV)/bin/python -c 'import pathlib, sysconfig; \
	  pathlib.Path(sysconfig.get_path("purelib"), "isoflop.pth").write_text("$(CURDIR)\n")'
	@touch $@

# Compilers for TPUs and GPUs, for `isoflop compile`: each in an environment of its own, since JAX
# takes an installed plugin for a sign that the hardware is there.
$(TPU_VENV)/.ready $(CUDA_VENV)/.ready: .venv-%/.ready: requirements/%.txt requirements/core.txt
	test -x $(@D)/bin/pip || $(PYTHON) -m venv --clear $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check \
	  --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(CORE)  ## a virtual environment in .venv with everything a run needs
setup-dev: $(DEV)  ## the same plus the tools and transformers, for tests and checks
setup-beam: $(BEAM)  ## .venv-beam with Apache Beam, for `isoflop prepare --runner`
setup-tpu: $(TPU_VENV)/.ready  ## .venv-tpu with libtpu, for `isoflop compile --topology v5p:…`
setup-cuda: $(CUDA_VENV)/.ready  ## .venv-cuda with the CUDA plugin, for `--topology h200:…`

pretrain: $(CORE)  ## set up, then plan, train, evaluate, export and report in one go
	$(BIN)/isoflop pretrain $(ARGS)

test: $(DEV)  ## the default tests
	$(BIN)/python -m pytest -n 2 $(ARGS)

test-slow: $(DEV) $(BEAM) $(TPU_VENV)/.ready  ## the tests marked slow; compiles for TPUs too
	$(BIN)/python -m pytest -n 2 -m "slow and not gpu" $(ARGS)

lint: $(DEV)  ## ruff: rules and layout, nothing changed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(DEV)  ## ruff: fix and lay out
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(DEV)  ## pyright
	$(BIN)/pyright --pythonpath $(BIN)/python

# Those that need nothing else: no run, no chip, no peer's environment.
BENCHMARKS := cpu_step cpu_training decode_speed data_pipeline loss_chunks step_time memory_model

bench: $(DEV)  ## the benchmarks of this machine's CPU, one after another (idle cores, please)
	@set -e; for name in $(BENCHMARKS); do echo "$$name"; $(BIN)/python -m benchmarks.$$name $(ARGS); done

docs: $(DEV)  ## check that the links in README.md and docs/ resolve
	$(BIN)/python -m pytest tests/test_docs.py

golden: $(DEV)  ## rewrite the golden JSON of every preset, after a change of defaults
	ISOFLOP_UPDATE_GOLDEN=1 $(BIN)/python -m pytest tests/configs/test_presets.py

clean:  ## remove the environment and caches (runs and corpora stay)
	rm -rf $(VENV) $(BEAM_VENV) $(TPU_VENV) $(CUDA_VENV) .pytest_cache .ruff_cache *.egg-info build
	find . -name __pycache__ -type d -not -path './.git/*' -prune -exec rm -rf {} +
