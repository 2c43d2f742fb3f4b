# Every target sets itself up: a fresh clone needs nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
# One arm per core: two single-threaded processes are faster than one with two threads at this size.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check coverage format test-slow test-docker test-verl test-gpu benchmarks clean help

help:
	@echo "make demo        train DeepSWE and DeepSWE+AEM side by side, write runs/demo/report.html (about 10 minutes)"
	@echo "make test        the fast tests            make test-slow   the slow ones"
	@echo "make check       formatting, lint, types   make test-docker those that need a container engine"
	@echo "make test-verl   real verl and Ray, on the CPU make test-gpu    those that need a GPU"
	@echo "make coverage    fails unless algorithms/ and the parser have 100% branch coverage"
	@echo "make benchmarks  ratios on this machine    make clean       remove the environment"

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "aem-swe needs Python 3.11 or newer; use make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -e .
	@touch $@

$(DEV_READY): $(READY)
	$(BIN)/python -m pip install --quiet -e '.[dev,parquet,swebench]'
	@touch $@

demo: $(READY)
	$(BIN)/aem-swe doctor demo
	@$(BIN)/aem-swe train demo run_dir=runs/demo/deepswe --resume --plain & first=$$!; \
	$(BIN)/aem-swe train demo_aem run_dir=runs/demo/deepswe_aem --resume --plain & second=$$!; \
	trap 'kill $$first $$second 2>/dev/null; wait' INT TERM; \
	wait $$first; a=$$?; wait $$second; b=$$?; test $$a -eq 0 -a $$b -eq 0
	$(BIN)/aem-swe compare runs/demo/deepswe runs/demo/deepswe_aem --out runs/demo/report.html

check: $(DEV_READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

coverage: $(DEV_READY)
	$(BIN)/pytest tests/algorithms tests/agents/test_parser.py --cov=aem_swe.algorithms --cov=aem_swe.agents.parser \
		--cov-branch --cov-fail-under=100 --cov-report=term

format: $(DEV_READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

test: $(DEV_READY)
	$(BIN)/pytest -n 2 --dist loadfile

test-slow: $(DEV_READY)
	$(BIN)/pytest -m slow -n 2 --dist loadfile

# DOCKER_TESTS: for an engine that not every test is for (.ci/run has a list for rootless Podman)
DOCKER_TESTS ?= tests
test-docker: $(DEV_READY)
	$(BIN)/pytest -m docker -n 2 --dist loadfile -rs $(DOCKER_TESTS)

# verl pins what nothing else should have to follow: an environment of its own
VERL := .venv-verl
$(VERL)/.ready: pyproject.toml
	$(PYTHON) -m venv $(VERL)
	$(VERL)/bin/python -m pip install --quiet -e '.[verl]' pytest hypothesis
	@touch $@

test-verl: $(VERL)/.ready
	$(VERL)/bin/python -m pytest -m verl -rs tests/engines/verl

test-gpu: $(DEV_READY)
	$(BIN)/pytest -m gpu

benchmarks: $(DEV_READY)
	$(BIN)/python benchmarks/aem.py
	$(BIN)/python benchmarks/sandbox_local.py
	$(BIN)/python benchmarks/gpu.py
	$(BIN)/python benchmarks/sandbox.py

clean:
	rm -rf $(VENV) $(VERL)
