# You need Python 3.11+, make and node. These targets need no other preparation:
#   make demo   install the package, then run `mirror demo`
#   make test   install everything, then run lint, types, import rules and tests
#   make chaos  repeat kills, faults and hostile input many times; writes the tables of docs/reliability.md
#   make docs   write docs/cli.md from the commands
#   make format   format the code, and apply ruff's safe fixes
#   make terraform-schema   write tests/terraform/schema.json from the providers' own schemas
#   make audit   look for known vulnerabilities of the locked dependencies on PyPI (needs a network)
#   make lock   write requirements/*.lock anew: the newest versions, with their hashes (needs a network)
#   make locked   install the locked versions into .venv, before make test
#   make bench   measure beside s5cmd, rclone, aws-cli …; BENCH="bulk rewrite" for a part (docs/benchmarks.md)
#   make bench-verdicts   print recall, false alarms and cost of the verdicts, as in docs/verdicts.md

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed-dev
DEMO   := $(VENV)/.installed-demo

.PHONY: help demo test check lint types imports servers unit chaos docs terraform-schema audit lock locked bench bench-verdicts format clean

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
	@echo "installing mirror and its test dependencies into $(VENV) …"
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

# One worker for each core, each with its own servers. More than four would run out of memory.
unit: $(STAMP) servers
	$(BIN)/pytest --quiet --numprocesses auto --maxprocesses 4 --dist worksteal

# The environment and the servers are installed at the same time.
test:
	@$(MAKE) --no-print-directory --jobs 2 $(STAMP) servers
	@$(MAKE) --no-print-directory check unit

# Tries more of each than `make test`. The same seed repeats a run. See tests/support/chaos_tally.py.
chaos: export CHAOS_SEED ?= 1
chaos: export CHAOS_KILLS ?= 50
chaos: export CHAOS_TIMES ?= 4
chaos: export CHAOS_REPORT := $(CURDIR)/.bench/chaos.jsonl
chaos: $(STAMP) servers
	@mkdir -p .bench && rm -f $(CHAOS_REPORT)
	@$(BIN)/pytest -m chaos -n 2 --dist worksteal --hypothesis-seed=$(CHAOS_SEED) --timeout 1200; tested=$$?; \
	$(BIN)/python -m tests.chaos.report $(CHAOS_REPORT) docs/reliability.md && exit $$tested

docs: $(STAMP)
	@$(BIN)/python -m mirror.cli.reference > docs/cli.md.new && mv docs/cli.md.new docs/cli.md

terraform-schema: $(STAMP)
	@$(BIN)/python -m tests.terraform.extract_schema

# Reads the versions from the lock files. So nothing is installed but the program that looks them up.
audit: | $(BIN)/python
	@$(BIN)/python -m venv .audit
	@.audit/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.lock
	.audit/bin/pip-audit --disable-pip --require-hashes --desc -r requirements/dev.lock -r requirements/audit.lock

LOCK := .audit/bin/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	--no-annotate --custom-compile-command "make lock"

lock: | $(BIN)/python
	@$(BIN)/python -m venv .audit
	@.audit/bin/python -m pip install --quiet --disable-pip-version-check uv
	$(LOCK) --extra all --extra dev --overrides requirements/without-torch.txt --output-file requirements/dev.lock pyproject.toml
	$(LOCK) --output-file requirements/audit.lock requirements/audit.in

# pip refuses a file with another hash. torch and mirror itself have none: $(STAMP) installs them.
locked: | $(BIN)/python
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.lock
	@$(MAKE) --no-print-directory $(STAMP)

bench: $(STAMP) servers
	@$(BIN)/python bench/run.py $(BENCH)

bench-verdicts: $(STAMP)
	@$(BIN)/python bench/verdicts.py --markdown

format: $(STAMP)
	$(BIN)/ruff check --quiet --fix . || true
	$(BIN)/ruff format --quiet .

clean:
	rm -rf $(VENV) .audit .servers .mypy_cache .ruff_cache .pytest_cache .hypothesis mirror-demo mirror-demo-training .import-linter.log .bench
