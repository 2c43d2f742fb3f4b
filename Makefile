# Every target sets itself up: a fresh clone needs nothing but Python >= 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
DEV_READY := $(VENV)/.ready-dev
# One arm per core: two single-threaded processes are faster than one with two threads at this size.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test check coverage format test-slow test-docker test-verl test-verl08 test-vllm test-rllm test-worlds test-gpu benchmarks clean help

help:
	@echo "make demo        train DeepSWE and DeepSWE+AEM side by side, write runs/demo/report.html (about 10 minutes)"
	@echo "make test        the fast tests            make test-slow   the slow ones"
	@echo "make check       formatting, lint, types   make test-docker those that need a container engine"
	@echo "make test-verl   real verl and Ray, on the CPU make test-gpu    those that need a GPU"
	@echo "make test-verl08 the same with verl 0.8"
	@echo "make test-vllm   real vLLM, and verl's whole chain with it, on the CPU (Python 3.11)"
	@echo "make test-worlds text games in ALFWorld's engine; building it needs a C compiler"
	@echo "make test-rllm   rLLM's backend and its whole chain, where rllm is on PYTHONPATH"
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

# verl pins what nothing else should have to follow: an environment of its own, and one for the older verl
VERL := .venv-verl
VERL08 := .venv-verl08
WORLDS := .venv-alfworld
$(VERL)/.ready $(VERL08)/.ready $(WORLDS)/.ready: .venv-%/.ready: pyproject.toml
	$(PYTHON) -m venv .venv-$*
	@echo '*' >.venv-$*/.gitignore
	.venv-$*/bin/python -m pip install --quiet -e '.[$*]' pytest hypothesis
	@touch $@

test-verl: $(VERL)/.ready
	$(VERL)/bin/python -m pytest -m verl -rs tests/engines/verl tests/gpu

test-verl08: $(VERL08)/.ready
	$(VERL08)/bin/python -m pytest -m verl -rs tests/engines/verl tests/gpu

test-worlds: $(WORLDS)/.ready
	$(WORLDS)/bin/python -m pytest -rs tests/worlds

# vLLM's CPU build stands in for its GPU wheel, which cannot even be imported without a GPU's libraries. No resolver finds
# a set with verl (requirements-cpu.txt says why), so everything is pinned. Where pip finds no torch without CUDA by
# itself, name PyTorch's index of CPU builds: make test-vllm CPU_INDEX=...
VLLM := .venv-vllm
CPU_INDEX ?=
$(VLLM)/.ready: tests/vllm/requirements-cpu.txt tests/vllm/vllm_stub/pyproject.toml pyproject.toml
	$(PYTHON) -m venv $(VLLM)
	$(VLLM)/bin/python -m pip install --quiet --no-deps $(if $(CPU_INDEX),--extra-index-url $(CPU_INDEX)) torch==2.13.0
	$(VLLM)/bin/python -m pip install --quiet --no-deps -r tests/vllm/requirements-cpu.txt ./tests/vllm/vllm_stub
	$(VLLM)/bin/python -m pip install --quiet --no-deps -e .
	@touch $@

test-vllm: $(VLLM)/.ready
	$(VLLM)/bin/python -m pytest -m vllm -rs tests/vllm
	$(VLLM)/bin/python -m pytest -m verl -rs tests/eval/test_ray_player.py

# needs rllm on PYTHONPATH as well, it is in no registry; without it these tests skip and say so
test-rllm: $(VLLM)/.ready
	$(VLLM)/bin/python -m pytest -m rllm -rs tests/engines tests/vllm

test-gpu: $(DEV_READY) $(VERL)/.ready
	$(BIN)/pytest -m gpu
	$(VERL)/bin/python -m pytest -m gpu tests/gpu/test_cluster_worker.py

benchmarks: $(DEV_READY)
	$(BIN)/python benchmarks/all.py --baseline benchmarks/results/baseline.json

clean:
	rm -rf $(VENV) $(VERL) $(VERL08) $(VLLM) $(WORLDS)
