# make demo   draw a page of prompts with every method        make test   lint, types, docs and tests
# make docs   build the site into build/site                    make web    build the page to play with into build/site/play
# All make .venv on the first run. PYTHON=python3.12 make test chooses the interpreter.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

# Twice the threads on the same cores spin against each other; the models here are small.
export OMP_NUM_THREADS ?= 2

.PHONY: demo docs test lint types tests web web-test play-test comfyui clean

demo: $(VENV)/.demo
	$(BIN)/zigzag demo --out out/demo

# A test keeps one core busy. WORKERS=8 make test runs as many at a time.
WORKERS ?= 2

test: $(VENV)/.test
	$(MAKE) --no-print-directory --jobs=2 lint types docs tests

tests: $(VENV)/.test
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=$(WORKERS) --dist=worksteal

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# basedpyright is pyright with its Node in the wheel, here in pyright's own strict mode.
types: $(VENV)/.test
	$(BIN)/mypy
	$(BIN)/basedpyright

# Offline and strict: a warning, a broken link, a missing name or a cell that raises ends it. Sphinx 9 needs Python 3.11.
docs: $(VENV)/.test
	@if $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	    OMP_NUM_THREADS=1 $(BIN)/python -m sphinx --fail-on-warning --nitpicky --fresh-env --quiet docs build/site; \
	else echo "docs: not built on Python 3.10, for which there is no Sphinx 9"; fi

# The page that draws in a browser; npm brings what runs the network there. `make docs` links to it where it is.
web: $(VENV)/.test
	$(BIN)/python -m zigzag.zoo.export_web --out build/site/play

# In a headless Chromium, with the time of an image; -rs says why where it is skipped.
web-test: web
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/zoo/test_export_web.py tests/zoo/web

# The page of `zigzag play` in a browser, and its picture in the docs. gradio is no part of what `make test` installs.
play-test: $(VENV)/.play
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -rs tests/cli/test_play_page.py
	PYTHONPATH=tests $(BIN)/python -m support.gradio_page docs/images/play.png

# COMFYUI is a checkout of ComfyUI, COMFYUI_PYTHON one that has what it needs; zigzag is found from here.
COMFYUI_PYTHON ?= python3

comfyui:
	@test -n "$(COMFYUI)" || { echo "COMFYUI=path/to/ComfyUI make comfyui"; exit 2; }
	$(COMFYUI_PYTHON) integrations/comfyui/check "$(COMFYUI)"

$(VENV)/.base: constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) setuptools torch
	touch $@

# No build isolation: what builds the package is pinned too.
$(VENV)/.demo: $(VENV)/.base pyproject.toml Makefile
	$(PIP) --no-build-isolation --editable '.[progress,plots,shapes]'
	touch $@

$(VENV)/.test: $(VENV)/.base pyproject.toml
	$(PIP) --no-build-isolation --editable '.[dev]'
	touch $@ $(VENV)/.demo

$(VENV)/.play: $(VENV)/.test
	$(PIP) --no-build-isolation --editable '.[play]'
	touch $@

clean:
	rm -rf $(VENV) build out *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
