# What a newcomer runs: `make demo` and `make test`. Both set up everything they need in .venv.
# TORCH_INDEX=URL takes torch from another index, such as one that has builds without CUDA.

PYTHON ?= python3
PIP_FLAGS := --disable-pip-version-check --quiet -c requirements.lock $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX))

.PHONY: demo test check check-portal install portal system-packages llama-cpp lock reference clean

demo: install
	.venv/bin/stillroom demo $(DEMO_FLAGS)

install: .venv/installed
	@.venv/bin/python portal/build.py || echo "The portal is not built; the rest works."

test: .venv/installed-dev system-packages llama-cpp
	$(MAKE) portal check
	.venv/bin/pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_FLAGS)

# Programs that some tests run, as PROGRAM:PACKAGE of Debian and Ubuntu.
SYSTEM_PACKAGES := bwrap:bubblewrap chromium:chromium

# Installs what is missing of them where it may; else the tests that need them are skipped.
system-packages:
	@missing=; for pair in $(SYSTEM_PACKAGES); do \
		command -v $${pair%%:*} >/dev/null || missing="$$missing $${pair#*:}"; \
	done; \
	[ -z "$$missing" ] || { \
		[ "$$(id -u)" = 0 ] && echo "Installing$$missing ..." && export DEBIAN_FRONTEND=noninteractive && { \
			apt-get install -y -qq $$missing >/dev/null 2>&1 || \
			{ apt-get update -qq && apt-get install -y -qq $$missing; } >/dev/null; \
		}; \
	} || echo "Not installed:$$missing. The tests that need them are skipped."

PYTHON_SOURCES := src tests benchmarks hatch_build.py portal/build.py

check: .venv/installed-dev check-portal
	.venv/bin/ruff check $(PYTHON_SOURCES)
	.venv/bin/ruff format --check $(PYTHON_SOURCES)
	.venv/bin/mypy
	.venv/bin/lint-imports

NPM := $(shell command -v npm)

check-portal: $(if $(NPM),portal/node_modules/.installed-dev)
	$(if $(NPM),cd portal && npm run --silent check,@echo "No npm here: the portal's own checks are left out.")

# Prebuilt, from npm: what the tests of GGUF files load them with.
llama-cpp: $(if $(NPM),tests/llama_cpp/node_modules/.installed)
	$(if $(NPM),,@echo "No npm here, so no llama.cpp: the tests that need it are skipped.")

tests/llama_cpp/node_modules/.installed: tests/llama_cpp/package-lock.json
	cd tests/llama_cpp && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@mkdir -p $(@D) && touch $@

portal/node_modules/.installed-dev: portal/package-lock.json
	cd portal && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error
	@touch $@

# Installing builds it too; this builds it again where its sources have changed since.
portal: .venv/bin/python
	.venv/bin/python portal/build.py

reference: .venv/installed-dev
	.venv/bin/python docs/reference.py

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit("stillroom needs Python 3.11 or newer; set PYTHON=...") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv .venv

.venv/installed: .venv/bin/python pyproject.toml requirements.lock
	@echo "Installing stillroom into .venv (the first time takes a few minutes) ..."
	.venv/bin/python -m pip install $(PIP_FLAGS) -e '.[students,distill,demo]'
	@touch $@

.venv/installed-dev: .venv/installed
	.venv/bin/python -m pip install $(PIP_FLAGS) -e '.[students,distill,wandb,demo,dev]'
	@touch $@

# Writes the lock file anew from the newest versions that pyproject.toml allows.
lock:
	rm -rf .venv-lock && $(PYTHON) -m venv .venv-lock
	.venv-lock/bin/python -m pip install --quiet -e '.[students,distill,wandb,demo,dev]' $(if $(TORCH),torch==$(TORCH))
	.venv-lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//' > requirements.lock
	rm -rf .venv-lock

clean:
	rm -rf portal/node_modules src/stillroom/portal tests/llama_cpp/node_modules
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
