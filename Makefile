# `make lab` and `make test` are all a newcomer needs; every target sets up .venv by itself.
.PHONY: help lab test lint format test-browser run measure slides book readme picture lock clean
.DEFAULT_GOAL := help

BIN := .venv/bin
READY := .venv/.ready
# one thread a process, two processes: outputs do not depend on the number of cores, and small tensors do not wait
QUIET := OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive PYTHONHASHSEED=0 COURSE_PICTURE=default
PYTEST := $(QUIET) MPLBACKEND= $(BIN)/python -m pytest -n 2 --dist loadfile
IS_FIT := import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))

help:  ## list what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## / | /' | awk -F ' \\| ' '{printf "make %-13s %s\n", $$1, $$2}'

# JupyterLab is quiet about news; its server takes messages, such as a reader's photograph, of up to 128 MiB
SETTINGS := publish/overrides.json publish/jupyter_server_config.json

# PYTHON=... chooses an interpreter; otherwise the first fitting one on the path
$(READY): requirements.txt pyproject.toml $(SETTINGS)
	@if ! test -x $(BIN)/python; then found=; \
	  for p in $(or $(PYTHON),python3 python3.13 python3.12 python3.11); do \
	    if $$p -c '$(IS_FIT)' >/dev/null 2>&1; then found=$$p; break; fi; \
	  done; \
	  if test -z "$$found"; then \
	    echo "This book needs Python 3.11, 3.12 or 3.13 with venv and ensurepip; found $$($(or $(PYTHON),python3) --version 2>&1)." >&2; \
	    echo "Install one of them, or name it: make PYTHON=/path/to/python3.12 ..." >&2; exit 1; \
	  fi; \
	  echo "Making .venv with $$found"; $$found -m venv .venv || { rm -rf .venv; exit 1; }; \
	fi
	@echo "Installing the locked packages into .venv (minutes the first time, seconds later)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -e .
	@mkdir -p .venv/share/jupyter/lab/settings .venv/etc/jupyter
	@cp publish/overrides.json .venv/share/jupyter/lab/settings/ && cp publish/jupyter_server_config.json .venv/etc/jupyter/
	@touch $@

lab: $(READY)  ## open the book in JupyterLab
	$(BIN)/jupyter trust notebooks/*/*.ipynb
	$(BIN)/jupyter lab --ip 127.0.0.1 $(if $(filter 0,$(shell id -u)),--allow-root) \
	  --ServerApp.root_dir="$(CURDIR)" --LabApp.default_url=/lab/tree/notebooks/0_orientation/00_start_here.ipynb

test: lint  ## check every statement of the book (no browser)
	$(PYTEST) --nbval tests notebooks --ignore=tests/browser

lint: $(READY)  ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(READY)  ## bring code and the chapters' code cells into shape
	$(BIN)/ruff check --fix --exit-zero --quiet --exclude '*.ipynb'
	$(BIN)/ruff format --exclude '*.ipynb'
	$(BIN)/jupytext --pipe '$(BIN)/ruff format --stdin-filename cell.py -' notebooks/*/*.md

test-browser: $(READY)  ## open every chapter, deck and page in a real Chromium
	$(PYTEST) -rA -p no:cacheprovider tests/browser

run: $(READY)  ## run the chapters again and store their outputs
	$(QUIET) $(BIN)/python -m publish.execute

measure: $(READY)  ## record seconds and memory of each chapter
	$(QUIET) $(BIN)/python -m publish.execute --measure

slides: $(READY)  ## build the decks: build/slides
	$(BIN)/python -m publish.slides.build

book: $(READY)  ## build the book: build/book
	$(BIN)/python -m publish.book.build

readme: $(READY)  ## renew the chapter table in README.md
	$(BIN)/python -m publish.readme

picture: $(READY)  ## take the picture of a chapter that README.md shows
	mkdir -p build
	COURSE_SCREENSHOT="$(CURDIR)/build/chapter.png" $(PYTEST) -n 0 -q tests/browser/test_lab.py -k 00
	$(BIN)/python -m publish.readme --picture build/chapter.png

lock: $(READY)  ## renew requirements.txt from what .venv holds
	$(BIN)/python -m publish.lock

clean:  ## remove .venv and everything that was built
	rm -rf .venv build publish/vendor publish/node_modules .pytest_cache .mypy_cache .ruff_cache .hypothesis
