# `make demo` and `make test` each build the virtual environment they need; nothing else has to be installed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN ?= runs/demo

.PHONY: demo test slow gpu fuzz kills soak check format docs mutation lock clean

demo: $(VENV)/.ready
	$(BIN)/simsiam pretrain --recipe demo --minutes 8 --out $(RUN)

test: $(VENV)/.ready
	$(BIN)/python -m pytest -n auto

slow: $(VENV)/.ready
	$(BIN)/python -m pytest -m slow

gpu: $(VENV)/.ready
	$(BIN)/python -m pytest -m gpu

fuzz: $(VENV)/.ready
	$(BIN)/python -m tests.fuzz

kills: $(VENV)/.ready
	$(BIN)/python -m tests.kills

soak: $(VENV)/.ready
	$(BIN)/python -m benchmarks.soak

check: $(VENV)/.ready
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.ready
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.ready
	$(BIN)/python scripts/reference.py

mutation: $(VENV)/.ready
	$(BIN)/python -m tests.mutation

# The versions that tests and demo run with. Written without the addresses of any index.
lock: $(VENV)/.ready
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --no-header \
	  --no-emit-index-url --no-emit-find-links --no-annotate --output-file requirements.lock

$(VENV)/.ready: requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 15) else "simsiam needs Python 3.11 to 3.14, this is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12 ...")'
	$(PYTHON) -c 'import shutil, sys; free = shutil.disk_usage(".").free / 1e9; sys.exit(0 if free > 7 else "simsiam: its environment takes 6 GB, and %.1f GB are free here; free some space and run make again" % free)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --requirement requirements.lock
	$(BIN)/python -m pip install --quiet --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) build *.egg-info
