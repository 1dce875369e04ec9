# A fresh machine with Python 3.11, 3.12 or 3.13 needs no other step before these targets. The newest
# one that runs, and can make an environment, is taken; a name alone may be a shim of nothing.
PYTHONS = python3.13 python3.12 python3.11 python3 python
PYTHON ?= $(firstword $(foreach python,$(PYTHONS),$(shell $(python) -c $(CAN_BE_USED) 2>/dev/null && \
	echo $(python))))
CAN_BE_USED = 'import ensurepip, sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))'
VENV ?= .venv
BIN = $(VENV)/bin
# Python compiles what is imported when it is; all of it would take pip a third of its time.
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c constraints.txt

# A checkout of T5X, for `make test-t5x`.
T5X_DIR ?=

.PHONY: quickstart test test-t5x torture lint clean

quickstart: $(VENV)/.installed
	$(BIN)/uem-t5x quickstart --output runs/quickstart

# `make test TESTS=tests/data`: those alone.
test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -n 2 --dist loadfile -rs $(TESTS)

# T5X's own scripts on our recipes; skipped, and said so, where T5X cannot be imported.
test-t5x: $(VENV)/.installed-t5x
	PYTHONPATH="$(T5X_DIR):$$PYTHONPATH" $(BIN)/python -m pytest tests/on_t5x -rs

# Killed, damaged, exhausted, fuzzed and soaked; `FUZZ_SECONDS=600 make torture` fuzzes for longer.
torture: $(VENV)/.installed-torture
	$(BIN)/python -m pytest tests/torture -n 2 --dist loadfile --no-loadscope-reorder -rPs --show-capture=stdout

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

$(BIN)/python:
	$(if $(PYTHON),,$(error no Python from 3.11 to 3.13 with `venv` here (looked for $(PYTHONS)): \
	install one, or name it: make PYTHON=PATH))
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
