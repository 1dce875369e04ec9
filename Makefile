# A fresh machine with Python 3.11 needs no other step before these targets.
PYTHON ?= python3.11
VENV ?= .venv
BIN = $(VENV)/bin
# Python compiles what is imported when it is; all of it would take pip a third of its time.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# A checkout of T5X, for `make test-t5x`.
T5X_DIR ?=

.PHONY: quickstart test test-t5x torture lint clean

quickstart: $(VENV)/.installed
	$(BIN)/python -m uem_t5x.quickstart --output runs/quickstart

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile -rs

# T5X's own scripts on our recipes; skipped, and said so, where T5X cannot be imported.
test-t5x: $(VENV)/.installed-t5x
	PYTHONPATH="$(T5X_DIR):$$PYTHONPATH" $(BIN)/python -m pytest tests/on_t5x -rs

# Killed, damaged, exhausted, fuzzed and soaked; `FUZZ_SECONDS=600 make torture` fuzzes for longer.
torture: $(VENV)/.installed-torture
	$(BIN)/python -m pytest tests/torture -n 2 --dist loadfile --no-loadscope-reorder -rPs --show-capture=stdout

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.py constraints.txt | $(BIN)/python
	$(PIP) -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(PIP) -e '.[test]'
	touch $@

$(VENV)/.installed-t5x: $(VENV)/.installed-test
	$(PIP) -e '.[t5x]'
	touch $@

$(VENV)/.installed-torture: $(VENV)/.installed-test
	$(PIP) -e '.[torture]'
	touch $@

clean:
	rm -rf $(VENV) build dist runs *.egg-info
