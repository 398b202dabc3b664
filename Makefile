# Every command that the project has. `make` lists them.

# The first Python that runs and that the lock was made for; failing that, a newer one.
# A candidate counts only when it really runs: a version manager's shim may exist and fail.
PYTHONS := python3 python3.14 python3.13 python3.12 python3.11
PYTHON ?= $(shell for below in 3,15 4,0; do for python in $(PYTHONS); do \
	"$$python" -c "import sys; sys.exit(not (3, 11) <= sys.version_info < ($$below))" \
		2>/dev/null && echo "$$python" && exit; done; done)

VENV := .venv
BIN := $(VENV)/bin
SERVER_INSTALLED := $(VENV)/.server-installed
ALL_INSTALLED := $(VENV)/.all-installed
FUZZ_INSTALLED := $(VENV)/.fuzz-installed
# Compiling everything costs a third of the time; what is imported is compiled then, and once:
# tests start hundreds of processes.
unexport PYTHONDONTWRITEBYTECODE
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
# What must cover the core by itself. It runs apart: measuring takes half the speed, and tests of
# the whole have clocks that run on.
CORE_TESTS := tests/contract tests/mail/test_letters.py tests/schema tests/store tests/unit
UV := build/uv/bin/uv pip compile --no-config --universal --python-version 3.11 \
	--generate-hashes --no-strip-extras --quiet --custom-compile-command "make lock" $(LOCK_OPTIONS)

.DEFAULT_GOAL := help
.PHONY: help setup run demo walkthrough test coverage simulate fuzz bench bench-report check docs format lock \
	clean

help: ## List the commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

setup: $(ALL_INSTALLED) ## Install the locked dependencies and the project into .venv

$(SERVER_INSTALLED): requirements-build.lock requirements-server.lock pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
		echo "wallet-sync needs Python 3.11 or later, and none of these is one: $(PYTHONS)." \
			"Install one, or name yours: make PYTHON=/path/to/python3" >&2; \
		exit 1; \
	fi
	@$(BIN)/python -m pip --version >/dev/null 2>&1 \
		|| "$(PYTHON)" -m venv --clear $(VENV) \
		|| { echo "$(PYTHON) could not make a virtual environment. On Debian and Ubuntu the" \
			"part that it lacks is a package of its own: apt install python3-venv" >&2; exit 1; }
	@echo "Installing into $(VENV), with $$($(BIN)/python --version)"
	@$(INSTALL) --require-hashes -r requirements-build.lock -r requirements-server.lock
	@$(INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

# Apart, so that `make run` on a fresh machine does not wait for the tools of the tests.
$(ALL_INSTALLED): requirements.lock $(SERVER_INSTALLED)
	@$(INSTALL) --require-hashes -r requirements.lock
	@touch $@

# Apart, for it is large and only this needs it.
$(FUZZ_INSTALLED): requirements-fuzz.lock $(ALL_INSTALLED)
	@$(INSTALL) --require-hashes -r requirements-fuzz.lock
	@touch $@

run: $(SERVER_INSTALLED) ## Serve on loopback, open to everyone, for development
	@exec env WSSERVER_VERIFICATION=$${WSSERVER_VERIFICATION:-open} \
		WSSERVER_HOST=$${WSSERVER_HOST:-127.0.0.1} $(BIN)/wsserver serve

demo: setup ## Watch two devices stay in sync, for half a minute
	@$(BIN)/python tools/demo.py

walkthrough: setup ## Write client/README.md anew from what the software prints
	@$(BIN)/python tools/walkthrough.py --write

test: setup ## Run the tests; the core must be covered by every branch
	@$(PYTEST) $(CORE_TESTS) --cov --cov-fail-under=100
	@# Real sockets, processes and browsers, beside whatever else the machine does: what failed
	@# runs once more, alone. A fault fails twice; the log shows both.
	@$(PYTEST) tests $(addprefix --ignore=,$(CORE_TESTS)) || { \
		echo "Once more, what failed, alone:"; \
		$(BIN)/python -m pytest --last-failed --last-failed-no-failures none; }

coverage: setup ## Write what the last `make test` covered to htmlcov/index.html
	@$(BIN)/python -m coverage html

simulate: setup ## Simulate a million seeds on all cores (SEEDS=10000); goes on where it stopped
	@$(BIN)/python -m tests.simulation $(or $(SEEDS),1000000)

fuzz: $(FUZZ_INSTALLED) ## Fuzz on all cores for MINUTES=10 (FUZZ_OPTIONS=--keep adds to the corpus)
	@$(BIN)/python -m tests.fuzz --minutes $(or $(MINUTES),10) $(FUZZ_OPTIONS)

bench: setup ## Measure everything that has a target, in ten minutes on an idle machine
	@$(BIN)/python -m benchmarks

bench-report: setup ## Write docs/explanation/performance.md anew from the last `make bench`
	@$(BIN)/python -m benchmarks.report

check: setup ## Check style, types, the direction of imports, and known faults
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/bandit --quiet --configfile pyproject.toml --recursive wsserver client schema
	@$(BIN)/python tools/audit.py

docs: setup ## Build the documentation into build/docs, with its links checked
	@$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet -c docs . build/docs
	@echo "The documentation is in build/docs/index.html"

format: setup ## Format the code and mend what can be mended
	@$(BIN)/ruff check --fix
	@$(BIN)/ruff format

lock: ## Lock the dependencies anew (LOCK_OPTIONS=--upgrade takes the newest)
	@[ -x build/uv/bin/uv ] || "$(PYTHON)" -m venv build/uv
	@build/uv/bin/python -m pip install --quiet --disable-pip-version-check --upgrade uv
	@$(UV) $(addprefix --extra ,bench cli docs lbry nats postgresql server test) pyproject.toml \
		--output-file requirements.lock
	@$(UV) $(addprefix --extra ,lbry nats postgresql server) --constraints requirements.lock pyproject.toml \
		--output-file requirements-server.lock
	@$(UV) --extra fuzz --constraints requirements.lock pyproject.toml \
		--output-file requirements-fuzz.lock
	@echo hatchling | $(UV) --constraints requirements.lock - \
		--output-file requirements-build.lock

clean: ## Remove what these commands made
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .grimp_cache .hypothesis \
		.import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find benchmarks client schema tests tools wsserver -name __pycache__ -type d -prune -exec rm -rf {} +
