# Each target first creates .venv, so that a new machine needs only python3, git and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# Twice as many workers as the usual two cores, since many tests wait; the tests of one file stay on one worker.
WORKERS := -n 4 --dist loadfile
# Bytecode is kept, also where the environment forbids it: each worker would compile all tests again, and each program that
# a test starts the whole package.
PYTEST := PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest $(WORKERS)
# The programs that tests need besides Python's packages: the browser of the page, the pooler in front of PostgreSQL, and
# the queue of arq and SAQ. PostgreSQL itself is one of Python's packages.
PROGRAMS := chromium pgbouncer redis-server
TESTS ?= tests

.PHONY: help demo test lowest audit check static coverage format bench docs clean programs

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

# pip is upgraded first: --group needs 25.1 or newer.
$(READY): pyproject.toml
	@echo "==> creating $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[cli,speed,otel,html,postgres]' --group dev
	@touch $@

programs: ## install the programs that tests need, where this user may install Debian's packages
	@PATH="$$PATH:/usr/sbin"; for each in $(PROGRAMS); do \
		command -v $$each >/dev/null && continue; \
		if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
			echo "==> installing $$each"; \
			apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $$each >/dev/null; \
		else \
			echo "==> $$each is missing: tests that need it are skipped"; \
		fi; \
	done

demo: $(READY) ## send one hour of shop events through the queue and an outage to the local sandbox; PAGE=1 shows its page
	@echo "==> demo"
	$(BIN)/exponea-async demo $(if $(PAGE),--page)

test: $(READY) programs ## run the tests
	@echo "==> tests"
	$(PYTEST)

lowest: $(READY) programs ## run the tests with the lowest supported version of each dependency and framework
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(VENV)/lowest
	$(BIN)/uv pip install --quiet --python $(VENV)/lowest --resolution lowest-direct --editable '.[cli,speed,otel,html,postgres]' --group frameworks
	$(BIN)/uv pip install --quiet --python $(VENV)/lowest --group dev
	@echo "==> tests with the lowest versions"
	$(VENV)/lowest/bin/python -m pytest $(WORKERS) $(TESTS)

# The database of advisories is in the internet, so this is not a part of "check".
audit: $(READY) ## look up known vulnerabilities of the installed dependencies
	$(BIN)/python -m pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip-audit --local

check: static coverage ## check format, lint and types, then run the tests with coverage

static: $(READY) ## check format, lint and types
	@echo "==> format"
	$(BIN)/ruff format --check .
	@echo "==> lint"
	$(BIN)/ruff check .
	@echo "==> types"
	$(BIN)/mypy

# The tests take about half as long again as without measuring.
coverage: $(READY) programs ## run the tests and measure the coverage of the package
	@echo "==> tests with coverage"
	$(PYTEST) --cov --cov-report=term

format: $(READY) ## format the code and apply automatic fixes
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Without the peers, the benchmark that compares with them says which are missing.
bench: $(READY) ## run the benchmarks and write the results to build/bench; BENCH=--long measures more
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check --group peers
	$(BIN)/python benchmarks/run.py $(BENCH)

docs: $(READY) ## build the documentation as HTML in build/docs
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --group docs
	$(BIN)/python -m sphinx -q -b html -W --keep-going docs build/docs
	@echo "==> build/docs/index.html"

clean: ## remove everything that the targets create
	rm -rf $(VENV) .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache build dist
