# Two commands on a fresh machine, each with all the set-up it needs: `make run` and `make test`.
PYTHON ?= python3
TORCH ?= torch==2.13.0
WORKERS ?= auto
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BASE := $(VENV)/.base
OLDEST := .venv-minimum

# packages are installed without byte code; where none may be written, every process would compile them anew
export PYTHONDONTWRITEBYTECODE :=

DEVICE ?= cuda
OUT ?= results/gpu
BUDGET ?= 480

.PHONY: run test test-slow test-minimum check bench gpu gpu-wheels scatter wheel clean

# torch stands in the same call, so that the resolver keeps the build that is asked for; what is never imported needs no
# byte code, and the rest gets it on first use
$(BASE): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile "$(TORCH)" -e .
	touch $@

$(READY): pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile "$(TORCH)" -e ".[dev]"
	-$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib # by all cores, before many processes of tests would do it
	touch $@ $(BASE)

run: $(BASE)
	$(BIN)/python examples/digits.py

# one worker a core, each with one torch thread; contiguous shares, so that fixtures of a file are made once
test: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not effect"

# every example and what else takes minutes
test-slow: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "slow and not effect"

# the quick tests with the lower bounds of pyproject.toml, as far as they are bounds of what is imported
test-minimum:
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(PYTHON) tests/minimum.py > $(OLDEST)/constraints.txt
	$(OLDEST)/bin/python -m pip install --quiet --no-compile --constraint $(OLDEST)/constraints.txt -e ".[test]"
	OMP_NUM_THREADS=1 $(OLDEST)/bin/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow and not effect"

check: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/graphseq bench speed.graph_loader speed.image_loader speed.graph_epoch

# Needs no installation and no network: PYTHON is any with torch >= 2.11 and PyG >= 2.8. The tests marked gpu, then the
# GPU rows of every speed experiment, each on disk as soon as it is done, in BUDGET seconds. DEVICE=cpu tries the way.
gpu:
	$(PYTHON) tests/gpu/run.py --device $(DEVICE) --out $(OUT) --seconds $(BUDGET)

# with a network, beforehand: pure-Python packages that the Python of the GPU may lack, into .gpu-wheels/
gpu-wheels:
	$(PYTHON) tests/gpu/run.py --wheels

# torch-scatter has no wheel on the package index and its build needs torch to be there: about five minutes
scatter: $(READY)
	$(BIN)/python -m pip install --quiet setuptools wheel ninja
	$(BIN)/python -m pip install --no-build-isolation torch-scatter==2.1.2

wheel: $(READY)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
