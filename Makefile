# Everything a reader or a developer runs. Each target first makes what it needs: a fresh clone, Python >= 3.10 and make are enough.

PYTHON ?= python3
# TORCH=cpu leaves NVIDIA's libraries out (on Linux they are most of the 6 GB); TORCH=auto looks which graphics card there is.
TORCH ?=

VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv pip install --compile-bytecode --python $(BIN)/python $(if $(TORCH),--torch-backend=$(TORCH))
READY := $(VENV)/ready

# Tests and saved notebooks always run on the embedded model, whatever weights this computer has.
OFFLINE := SAM_NB_MODEL=lite SAM_NB_HOME='$(CURDIR)/$(VENV)/sam-nb-home'

.DEFAULT_GOAL := help
.PHONY: help setup lab test web notebooks check lock

help:  ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

setup: $(READY)  ## make the environment in .venv, nothing else

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "sam-nb needs Python 3.10 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(UV) --quiet --requirement requirements.lock
	$(UV) --quiet --no-deps --editable .
	touch $@

lab: $(READY)  ## open the walkthrough in JupyterLab
	$(BIN)/jupyter lab --LabApp.default_url=/lab/tree/notebooks/01_single_point.ipynb $(if $(filter 0,$(shell id -u)),--allow-root)

test: $(READY)  ## run every test and every notebook
	$(OFFLINE) $(BIN)/python -m pytest -n 2 --dist worksteal

web: $(READY)  ## build the page that runs lite in a browser into build/web (needs npm)
	$(OFFLINE) $(BIN)/python web/build.py

notebooks: $(READY)  ## execute the notebooks and save them with their outputs
	$(OFFLINE) $(BIN)/python scripts/execute_notebooks.py

check: $(READY)  ## look for mistakes, untidy code and types that do not fit, notebooks included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: $(READY)  ## pin the newest versions of everything, for every system at once
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.10 --extra test --extra dev \
		--no-header --no-annotate --no-emit-index-url pyproject.toml --output-file requirements.all
	# torch pins NVIDIA's libraries by itself, and its CPU builds do without them.
	grep -vE '^(cuda|nvidia|triton)' requirements.all > requirements.lock
	rm requirements.all
