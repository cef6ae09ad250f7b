# Each target first builds .venv, so that a fresh machine needs only python3, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help demo test check format lint types coverage bench clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml
	@echo "==> building $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(READY) ## an hour of a small shop, through a real queue and an outage, into the local sandbox
	@echo "==> the demo: a shop's hour into the sandbox"
	$(BIN)/exponea-async demo

test: $(READY) ## the tests
	@echo "==> the tests"
	$(BIN)/python -m pytest

check: $(READY) ## format, lint, types, tests with coverage: what has to pass
	@echo "==> format"
	$(BIN)/ruff format --check .
	@echo "==> lint"
	$(BIN)/ruff check .
	@echo "==> types"
	$(BIN)/mypy
	@$(MAKE) --no-print-directory coverage

coverage: $(READY) ## the tests, with coverage of the package
	@echo "==> the tests, with coverage"
	$(BIN)/python -m pytest --cov --cov-report=term

format: $(READY) ## put the code into form
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## the benchmarks, each beside its limit
	@for each in track drain loop memory imports devices messages; do $(BIN)/python benchmarks/$$each.py || exit 1; done

clean: ## remove what the targets made
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
