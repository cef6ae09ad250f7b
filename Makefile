# Each target first creates .venv, so that a new machine needs only python3, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Twice as many workers as the usual two cores, since many tests wait; the tests of one file stay on one worker.
WORKERS := -n 4 --dist loadfile
PYTEST := $(BIN)/python -m pytest $(WORKERS)

.PHONY: help demo test lowest audit check format lint types coverage bench docs clean

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# pip is upgraded first: --group needs 25.1 or newer.
$(READY): pyproject.toml
	@echo "==> creating $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[speed,otel,html]' --group dev
	@touch $@

demo: $(READY) ## send one hour of shop events through the queue and an outage to the local sandbox
	@echo "==> demo"
	$(BIN)/exponea-async demo

test: $(READY) ## run the tests
	@echo "==> tests"
	$(PYTEST)

lowest: $(READY) ## run the tests with the lowest supported version of each dependency
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/lowest
	$(BIN)/uv pip install --quiet --python $(VENV)/lowest --resolution lowest-direct --editable '.[speed,otel,html]'
	$(BIN)/uv pip install --quiet --python $(VENV)/lowest --group dev
	@echo "==> tests with the lowest versions"
	$(VENV)/lowest/bin/python -m pytest $(WORKERS)

# The database of advisories is in the internet, so this is not a part of "check".
audit: $(READY) ## look up known vulnerabilities of the installed dependencies
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --local

check: $(READY) ## check format, lint and types, then run the tests with coverage
	@echo "==> format"
	$(BIN)/ruff format --check .
	@echo "==> lint"
	$(BIN)/ruff check .
	@echo "==> types"
	$(BIN)/mypy
	@$(MAKE) --no-print-directory coverage

coverage: $(READY) ## run the tests and measure the coverage of the package
	@echo "==> tests with coverage"
	$(PYTEST) --cov --cov-report=term

format: $(READY) ## format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## run the benchmarks and compare each with its limit
	@for each in track drain loop memory imports devices messages; do $(BIN)/python benchmarks/$$each.py || exit 1; done

docs: $(READY) ## build the documentation as HTML in build/docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	$(BIN)/python -m sphinx -q -b html -W --keep-going docs build/docs
	@echo "==> build/docs/index.html"

clean: ## remove everything that the targets create
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
