# Two commands: `make up` runs the portal, `make test` runs every test. `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
PYTHON ?= $(shell for name in python3.11 /usr/bin/python3.11 python3; do command -v $$name >/dev/null && $$name -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null && echo $$name && break; done)
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input

.PHONY: help up test check lint fix types lock messages screenshots bench clean browser gettext

help: ## list the commands
	@grep -hE '^[a-z-]+:.*?## ' $(MAKEFILE_LIST) | awk 'BEGIN {FS = ":.*?## "} {printf "  make %-12s %s\n", $$1, $$2}'

# --- environments: made again only when a lock has changed

$(VENV)/.made:
	@[ -n "$(PYTHON)" ] || { echo "Python 3.11 was not found. Install it (Debian: sudo apt-get install python3.11 python3.11-venv), then run make again."; exit 1; }
	@echo "making the Python environment in $(VENV)"
	@"$(PYTHON)" -m venv $(VENV) || { echo "The environment could not be made. Debian needs: sudo apt-get install python3.11-venv"; exit 1; }
	@touch $@

$(VENV)/.run: requirements.lock | $(VENV)/.made
	@echo "installing what the portal needs (a minute on the first run)"
	@$(PIP) install --require-hashes --requirement requirements.lock
	@touch $@

$(VENV)/.dev: requirements-dev.lock $(VENV)/.run
	@echo "installing what the tests need"
	@$(PIP) install --require-hashes --requirement requirements-dev.lock
	@touch $@

# --- running

up: $(VENV)/.run ## run the portal (PORT=8123 HOST=127.0.0.1 DEMO=0 TLS=1)
	@exec $(BIN)/python manage.py portal

# --- checking

browser:
	@if ! command -v chromium >/dev/null && ! command -v chromium-browser >/dev/null && ! command -v google-chrome >/dev/null; then \
	  if [ "$$(id -u)" = 0 ]; then \
	    echo "installing Chromium for the browser tests"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install chromium fonts-noto-cjk >/dev/null; \
	  else \
	    echo "The browser tests need Chromium. Run: sudo apt-get install chromium fonts-noto-cjk"; exit 1; \
	  fi; \
	fi

gettext:
	@if ! command -v xgettext >/dev/null; then \
	  if [ "$$(id -u)" = 0 ]; then \
	    echo "installing gettext for the check of the translations"; \
	    apt-get -qq update && DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install gettext >/dev/null; \
	  else \
	    echo "Extracting texts needs gettext. Run: sudo apt-get install gettext"; exit 1; \
	  fi; \
	fi

# The rules are covered to every branch by their own tests; watching takes more than half of the time of all the others.
test: $(VENV)/.dev browser ## run every test, the browser's last and alone
	@$(BIN)/python manage.py compile_translations
	@$(BIN)/python -m pytest -q -n 2 tests/patching --cov=patching --cov-branch --cov-fail-under=100 --cov-report=
	@$(BIN)/python -m pytest -q -n 2 -m "not browser" --ignore=tests/patching
	@$(BIN)/python -m pytest -q -m browser

check: lint types test ## all that CI runs

lint: $(VENV)/.dev gettext ## style, floors, migrations, translations
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --quiet --check .
	@find templates -name '*.html' -print0 | xargs -0 $(BIN)/djade --target-version 5.2 --check
	@$(BIN)/lint-imports --no-cache | tail -n 2
	@SECRET_KEY=only-for-lint-0123456789-abcdefghijklmnopqrstuvwxyz $(BIN)/python -W ignore manage.py makemigrations --check --dry-run --verbosity 0
	@$(BIN)/python manage.py check_translations

types: $(VENV)/.dev ## mypy, strict
	@$(BIN)/mypy

fix: $(VENV)/.dev ## format, and mend what can be mended
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .
	@find templates -name '*.html' -print0 | xargs -0 $(BIN)/djade --target-version 5.2 || true

messages: $(VENV)/.dev gettext ## bring new texts into the Japanese catalogue
	@$(BIN)/python manage.py check_translations --write || true

bench: $(VENV)/.dev ## measure pages, operations and faults (some hours; docs/performance.md)
	@$(BIN)/python -m bench.pages && $(BIN)/python -m bench.operations && $(BIN)/python -m bench.faults && $(BIN)/python -m bench.starts

screenshots: $(VENV)/.dev browser ## every page, en/ja x light/dark x wide/narrow, into screenshots/
	@$(BIN)/python manage.py compile_translations
	@$(BIN)/python -m pytest -q tests/browser/screenshots.py

# --- locking: hashes, no address of any index, and extras: pip looks past the pin of what another package asks for with one

LOCK_FLAGS := --python-version 3.11 --universal --no-strip-extras --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock" --quiet

lock: | $(VENV)/.made ## resolve the dependencies again
	@$(PIP) install --target $(VENV)/lock-tools --upgrade uv
	@$(VENV)/lock-tools/bin/uv pip compile pyproject.toml --extra embedded --extra azure $(LOCK_FLAGS) --output-file requirements.lock
	@$(VENV)/lock-tools/bin/uv pip compile --group dev --constraint requirements.lock $(LOCK_FLAGS) --output-file requirements-dev.lock

clean: ## remove the environment and what was compiled (the portal's data in .portal stays)
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
