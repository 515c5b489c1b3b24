# `make sample` and `make test` need Python 3.10 or newer and the network for pip, nothing else.
PYTHON ?= python3
ACTIVE = .venv/bin/

.DEFAULT_GOAL = help
.PHONY: help sample test lint

help:  ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "make %-8s %s\n", $$1, $$2}' Makefile

sample: .venv/installed  ## deblur the sample photographs of assets/samples into outputs/
	$(ACTIVE)bd-diff sample

test: .venv/installed-dev  ## run the tests
	$(ACTIVE)python -m pytest -q

lint: .venv/installed-dev  ## check the style and the types
	$(ACTIVE)ruff check .
	$(ACTIVE)ruff format --check .
	$(ACTIVE)mypy

# Stamps: installed again only when the dependencies change.
.venv/created:
	$(PYTHON) -c 'import sys; sys.exit("bd-diff needs Python 3.10 or newer" if sys.version_info < (3, 10) else 0)'
	$(PYTHON) -m venv .venv
	touch $@

.venv/installed: .venv/created pyproject.toml
	@echo "installing into .venv (PyTorch is large: this takes minutes, once)"
	$(ACTIVE)pip install --quiet -e .
	touch $@

.venv/installed-dev: .venv/created pyproject.toml
	@echo "installing into .venv (PyTorch is large: this takes minutes, once)"
	$(ACTIVE)pip install --quiet -e '.[dev]'
	touch .venv/installed $@
