# Two commands do everything on a machine with Python 3.11+, make and node:
#   make demo   the environment, then `mirror demo`
#   make test   the environment, the test servers, lint, types, import rules, tests
#   make docs   docs/cli.md, from the commands
#   make terraform-schema   tests/terraform/schema.json, from the providers' own schemas
#   make bench   measure beside s5cmd, rclone, aws-cli …; BENCH="bulk rewrite" for a part (docs/benchmarks.md)
#   make bench-verdicts   recall, false alarms and cost of the verdicts (writes the table of docs/verdicts.md)

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-dev
DEMO   := $(VENV)/.installed-demo

.PHONY: help demo test check lint types imports servers unit docs terraform-schema bench bench-verdicts format clean

help:
	@sed -n 's/^#   /  /p' Makefile

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or later is needed; run make PYTHON=python3.11 …"; exit 1; }
	@$(PYTHON) -m venv $(VENV)

$(DEMO): pyproject.toml | $(BIN)/python
	@echo "installing mirror into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	@touch $@

$(STAMP): pyproject.toml | $(BIN)/python
	@echo "installing mirror and what its tests need into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[all,dev]'
	@touch $@ $(DEMO)

demo: $(DEMO)
	@$(BIN)/mirror demo

servers:
	@tests/servers/install.sh

lint: $(STAMP)
	$(BIN)/ruff check --quiet .
	$(BIN)/ruff format --check --quiet .

types: $(STAMP)
	$(BIN)/mypy

imports: $(STAMP)
	$(BIN)/lint-imports --no-cache > .import-linter.log || { cat .import-linter.log; exit 1; }

check: lint types imports

unit: $(STAMP) servers
	$(BIN)/pytest

test: check unit

docs: $(STAMP)
	@$(BIN)/python -m mirror.cli.reference > docs/cli.md.new && mv docs/cli.md.new docs/cli.md

terraform-schema: $(STAMP)
	@$(BIN)/python -m tests.terraform.extract_schema

bench: $(STAMP) servers
	@$(BIN)/python bench/run.py $(BENCH)

bench-verdicts: $(STAMP)
	@$(BIN)/python bench/verdicts.py --markdown

format: $(STAMP)
	$(BIN)/ruff check --quiet --fix . || true
	$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) .servers .mypy_cache .ruff_cache .pytest_cache .hypothesis mirror-demo mirror-demo-training .import-linter.log .bench
