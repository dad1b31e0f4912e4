# Three words each, on a machine with Python >= 3.11 and make: make demo, make test, make check.
#
#   PYTHON=python3.12        the interpreter that builds .venv
#   VENV=/elsewhere          where the environment lives
#   PYTEST_ARGS="-k io"      passed to pytest
#
# torch goes in first and by its exact version, so that nothing else decides which build of it is fetched. On a machine
# without a GPU, tell pip where your CPU wheels are (PIP_FIND_LINKS or PIP_EXTRA_INDEX_URL): the default Linux wheel
# brings several gigabytes of CUDA libraries with it.

PYTHON ?= python3
VENV ?= .venv
PYTEST_ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
TORCH := $(shell grep '^torch==' constraints.txt)
RUNTIME := $(VENV)/.installed-runtime
DEV := $(VENV)/.installed-dev
DOCS := $(VENV)/.installed-docs
TUTORIALS := $(VENV)/.installed-tutorials
RELEASE := $(VENV)/.release
LABEL := $(VENV)-label

.DEFAULT_GOAL := help
.PHONY: help demo test coverage check fuzz format docs tutorials label walk release venv clean

help:  ## what there is
	@grep -E '^[a-z]+:.*##' Makefile | sed 's/:.*## /|/' | awk -F'|' '{printf "  make %-9s %s\n", $$1, $$2}'

demo: $(RUNTIME)  ## segment demonstration scans; results and pictures land in demo/
	$(BIN)/medfewshot demo -o demo/

test: $(DEV)  ## every test, on every core
	$(BIN)/python -m pytest -q -n auto --dist worksteal $(PYTEST_ARGS)

coverage: $(DEV)  ## every test, and which lines and branches they reach
	$(BIN)/python -m pytest -q -n auto --dist worksteal --cov $(PYTEST_ARGS)

check: $(DEV)  ## lint, format, types, the pages against the records, and the figures of the house
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m lab.tables --check
	$(BIN)/python -m lab.kinds --check
	$(BIN)/python -m lab.prose
	$(BIN)/python -m lab.house
	@$(BIN)/pip-audit --progress-spinner off --timeout 5 -r constraints.txt --no-deps --disable-pip > .audit 2>&1; \
		code=$$?; if grep -q '^Found .* known vulnerabilit' .audit; then cat .audit; rm .audit; exit 1; fi; \
		if [ $$code -ne 0 ] || grep -q 'could not be audited' .audit; then \
		echo "pip-audit: skipped for some or all packages, the vulnerability database does not answer for them"; fi; \
		rm .audit

fuzz: $(DEV)  ## damaged files and random command lines, until stopped or 20,000 of each
	$(BIN)/python -m pytest -q --hypothesis-profile=fuzz tests/fuzz $(PYTEST_ARGS)

format: $(DEV)  ## let ruff repair what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: $(DOCS)  ## the documentation site in site/, strictly: a broken link is an error
	$(BIN)/mkdocs build

tutorials: $(TUTORIALS)  ## execute the notebooks anew (MEDFEWSHOT_DATA: real scans for them)
	cd tutorials && for name in [0-9]*.py; do \
		$(abspath $(BIN))/jupytext --to ipynb "$$name" && PATH="$(abspath $(BIN)):$$PATH" \
		$(abspath $(BIN))/jupyter-nbconvert --to notebook --execute --inplace "$${name%.py}.ipynb" || exit 1; done

release: $(RELEASE)/bin/cyclonedx-py  ## wheel, source archive and software bill of materials (CycloneDX) in dist/
	rm -rf dist build
	$(RELEASE)/bin/python -m lab.release --check
	$(RELEASE)/bin/python -m lab.release -o dist
	$(PYTHON) -m venv --clear $(RELEASE)/what-ships
	$(RELEASE)/what-ships/bin/python -m pip --disable-pip-version-check install -c constraints.txt $(TORCH)
	$(RELEASE)/what-ships/bin/python -m pip --disable-pip-version-check install -c constraints.txt dist/*.whl
	$(RELEASE)/what-ships/bin/python -m pip --disable-pip-version-check uninstall -q -y pip setuptools
	$(RELEASE)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --mc-type library \
		-o dist/medfewshot-$$($(BIN)/python -c 'import medfewshot; print(medfewshot.__version__)').cdx.json $(RELEASE)/what-ships

label: $(LABEL)/.installed  ## the annotation server's tests, in .venv-label: MONAI Label pins an old numpy
	PATH="$(abspath $(LABEL))/bin:$$PATH" $(LABEL)/bin/python -m pytest -q -rs tests/integrations/test_integrations_label*.py $(PYTEST_ARGS)

walk:  ## install, demo, bundle, report and tutorials in a clean environment (MEDFEWSHOT_DATA: real scans)
	$(PYTHON) -m lab.studies.walk

venv: $(DEV)  ## the development environment in .venv

clean:  ## remove caches and build output; .venv stays
	rm -rf build dist site .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find medfewshot tests -type d -name __pycache__ -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "medfewshot needs Python 3.11 or newer: make $(MAKECMDGOALS) PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): pyproject.toml constraints.txt | $(BIN)/python
	$(PIP) install -c constraints.txt $(TORCH)
	$(PIP) install -c constraints.txt -e .
	@touch $@

$(RELEASE)/bin/cyclonedx-py: | $(BIN)/python
	$(PYTHON) -m venv $(RELEASE)
	$(RELEASE)/bin/python -m pip --disable-pip-version-check install build cyclonedx-bom
	@touch $@

$(DEV): $(RUNTIME)
	$(PIP) install -c constraints.txt -e '.[dev]'
	@touch $@

$(LABEL)/.installed: tests/integrations/monai_label.txt
	$(PYTHON) -m venv $(LABEL)
	$(LABEL)/bin/python -m pip install $(TORCH)
	$(LABEL)/bin/python -m pip install --no-deps monailabel==0.8.5
	$(LABEL)/bin/python -m pip install -r tests/integrations/monai_label.txt $(TORCH) pytest hypothesis -e .
	@touch $@

$(DOCS): $(RUNTIME)
	$(PIP) install -c constraints.txt -e '.[docs]'
	@touch $@

$(TUTORIALS): $(RUNTIME)
	$(PIP) install -c constraints.txt -e '.[tutorials,monai]'
	@touch $@
