# `make demo` and `make test` set up .venv first, when it is missing or older than what it is made from.
PYTHON ?= python3
BIN := .venv/bin
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest --numprocesses 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test test-optimized test-hashes test-long fuzz faults check audit sbom bench docs wheels dist clean

.venv/.ready: pyproject.toml constraints.txt tools/source_paths.py $(wildcard backends/ernie_rt_onnx/ops/*)
	@echo "Setting up .venv: this downloads PyTorch and more, which takes minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python tools/source_paths.py
	touch $@

demo: .venv/.ready  ## ask the models that come along
	$(BIN)/ernie-rt run demo "How many grams are in 5 kilograms?"
	$(BIN)/ernie-rt run demo "5公里等于多少米?"
	$(BIN)/ernie-rt run demo-vl --image tests/data/pictures/circle.png "What color is the circle?"

test: .venv/.ready  ## the default suite, in two processes of one thread each, file by file
	$(PYTEST)

test-optimized: .venv/.ready  ## the default suite as python -O runs it: asserts count in tests alone
	PYTHONOPTIMIZE=1 $(PYTEST)

test-hashes: .venv/.ready  ## the default suite with sets and dictionaries of other orders
	for seed in 0 1 42; do PYTHONHASHSEED=$$seed $(PYTEST) || exit; done

test-long: .venv/.ready  ## what takes minutes
	$(PYTEST) -m long

INPUTS ?= 4000000
fuzz: .venv/.ready  ## hostile inputs for every reader, as many as INPUTS says: the whole takes long
	PYTHONPATH=tests OMP_NUM_THREADS=1 $(BIN)/python -m fuzz --jobs 2 --inputs $(INPUTS) --json build/fuzz.json

faults: .venv/.ready  ## kills, calls that fail, full disks, losses of power: all of it, and the figures as JSON
	PYTHONPATH=tests $(BIN)/python -m faults

check: .venv/.ready  ## lint, formatting, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

build/audit/.ready: constraints.txt
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt pip-audit cyclonedx-bom
	touch $@

audit: .venv/.ready build/audit/.ready  ## known vulnerabilities of what constraints.txt pins
	$(BIN)/python tools/audit.py build/audit/bin/pip-audit

sbom: .venv/.ready build/audit/.ready  ## what is installed, as CycloneDX, into build/sbom.json
	$(BIN)/python tools/sbom.py build/audit/bin/cyclonedx-py build/sbom.json

bench: .venv/.ready  ## speed and memory beside transformers
	$(BIN)/ernie-rt bench 0.3B --backend eager --backend onnx --vs transformers --new 64

docs: .venv/.ready  ## the pages as a site in build/site, every link followed
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt zensical
	$(BIN)/zensical build --clean --strict

wheels: .venv/.ready  ## for publishing, into dist/, with the library of operators inside
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt wheel ziglang
	$(BIN)/python tools/wheels.py

dist: .venv/.ready  ## a wheel and an sdist, into dist/, checked in bare environments
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt wheel
	$(BIN)/python tools/dist.py

clean:
	rm -rf .venv build .cache *.egg-info
