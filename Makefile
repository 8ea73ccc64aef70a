# Two commands do everything, set-up included, with nothing but python >= 3.11:
#   make quickstart    fine-tunes a real pretrained BERT (about three minutes on two CPU cores, after the set-up)
#   make test          checks style and types, then runs every test
# PYTHON=/path/to/python chooses another interpreter. Everything that is installed goes into ./.venv.

PYTHON ?= python3
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

unexport PYTHONDONTWRITEBYTECODE  # without cached bytecode `import torch` takes four times as long
unexport VIRTUAL_ENV

VENV := .venv
BIN := $(VENV)/bin
# uv installs 5 GB in a minute, and looks only at the package index: a stray wheel of torch elsewhere would break torchvision.
INSTALL := $(BIN)/uv pip install --python $(BIN)/python --constraint constraints.txt --editable
# A file's tests share what they trained, so a file stays together; tests/integration, the longest, comes first.
SIDE_BY_SIDE := --numprocesses logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help quickstart test test-campaigns test-slurm cluster test-fast lint format reference clean

help:  ## What there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "make %-12s %s\n", $$1, $$2}'

quickstart: $(VENV)/.train  ## Fine-tune a small BERT on movie reviews, here, now
	$(BIN)/fullrank run quickstart

test: lint  ## Style, types and every test that needs no Slurm
	@echo "left out: the tests on a real Slurm (make test-slurm; they need root), some minutes of stops and kills (make test-campaigns)"
	$(BIN)/python -m pytest -m "not slurm and not campaign" $(SIDE_BY_SIDE)

test-campaigns: $(VENV)/.dev  ## Trainings stopped and killed at random, gone on with, compared bit by bit: a few of each kind
	$(BIN)/python -m pytest tests/integration/test_campaigns.py

SLURM_TESTS ?= slurm

test-slurm: $(VENV)/.dev  ## The tests on a real Slurm of three nodes, booted here; installs Debian's packages; needs root
	$(BIN)/python -m tests.cluster install
	$(BIN)/python -m pytest -m "$(SLURM_TESTS)" tests/integration/slurm

cluster: $(VENV)/.dev  ## A shell on a Slurm of three nodes, here, to try; needs root
	$(BIN)/python -m tests.cluster install
	$(BIN)/python -m tests.cluster shell

test-fast: $(VENV)/.dev  ## The tests that start no processes
	$(BIN)/python -m pytest -m "not integration and not slurm and not campaign" $(SIDE_BY_SIDE)

lint: $(VENV)/.dev  ## Style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/shellcheck .ci/run

format: $(VENV)/.dev  ## Put the code into its one format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

reference: $(VENV)/.dev  ## Write the reference pages and the schemas anew, from the descriptions in the code
	$(BIN)/python -m docs.write_reference

clean:  ## Remove what was installed and cached; runs/ stays
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache

$(VENV)/.train: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) '.[train]'
	@touch $@

$(VENV)/.dev: $(VENV)/.uv pyproject.toml constraints.txt
	$(INSTALL) '.[train,deepspeed,dev]'
	@touch $@ $(VENV)/.train

$(VENV)/.uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: fullrank needs python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) --version 2>&1 || echo missing); try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "error: $(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	@touch $@
