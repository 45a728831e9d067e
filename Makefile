# Two commands on a fresh machine, each with all the set-up it needs: `make run` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: run test check bench scatter wheel clean

# torch stands in the same call, so that the resolver keeps the build that is asked for
$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet "$(TORCH)" -e ".[dev]"
	touch $@

run: $(READY)
	$(BIN)/python examples/digits.py

# one worker a core, each with one torch thread; contiguous shares, so that fixtures of a file are made once
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not effect"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/graphseq bench speed.graph_loader speed.image_loader speed.graph_epoch

# torch-scatter has no wheel on the package index and its build needs torch to be there: about five minutes
scatter: $(READY)
	$(BIN)/python -m pip install --quiet setuptools wheel ninja
	$(BIN)/python -m pip install --no-build-isolation torch-scatter==2.1.2

wheel: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
