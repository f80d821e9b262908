# make demo   the default experiment on data that needs no network, then the path of its report
# make test   the tests
# make help   the rest
PYTHON ?= python3
BIN    := .venv/bin
GPUS   := $(shell nvidia-smi -L 2>/dev/null | grep -c '^GPU ')
SNAKEMAKE = $(BIN)/python -m snakemake $(if $(filter-out 0,$(GPUS)),--resources gpu=$(GPUS))

COMPILE = $(BIN)/uv pip compile --quiet --python-version 3.11 --no-header --no-annotate --no-emit-index-url $(if $(PIP_FIND_LINKS),--find-links $(PIP_FIND_LINKS))

.DEFAULT_GOAL := help
.PHONY: help demo test slurm-plugin stress bench check format docs slurm lock clean

help: ## this list
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 16

.venv/installed: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "segcross needs Python 3.11 or newer; say which: make PYTHON=python3.12")'
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --disable-pip-version-check -r requirements.lock
	touch $@

demo: .venv/installed ## the default experiment, about ten minutes; ends with the path of a report
	$(SNAKEMAKE) --quiet rules
	@echo; echo "The report is ready; open it in a browser:"; echo "  $(CURDIR)/results/demo/report/index.html"

test: .venv/installed ## all tests
	$(BIN)/python -m pytest -n auto --dist loadfile

slurm-plugin: .venv/installed
	$(BIN)/python -m pip install --quiet --no-deps --upgrade --target .slurm-plugin -r requirements-slurm.lock

stress: slurm-plugin ## what takes an hour or more: 200 random kills, all of it on a real Slurm, full disks, 10,000 cells; prints its figures
	REQUIRE_SLURM=1 $(BIN)/python -m pytest -n0 -m "" tests/test_stress.py tests/test_slurm.py tests/test_disk_full.py tests/test_planning.py

.bench-venv/installed: requirements-bench.txt
	$(PYTHON) -m venv --clear .bench-venv
	.bench-venv/bin/python -m pip install --quiet --disable-pip-version-check -r $<
	touch $@

.bench-nnunet/installed:
	$(PYTHON) -m venv --clear .bench-nnunet
	.bench-nnunet/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 nnunetv2==2.8.1
	touch $@

BENCH = OMP_NUM_THREADS=1 .bench-venv/bin/python benchmarks
bench: .bench-venv/installed .bench-nnunet/installed .venv/installed ## ours beside the peers, an hour on a quiet machine, and docs/performance.md from it
	$(BENCH)/metrics.py --save
	$(BENCH)/training.py --nnunet .bench-nnunet/bin/python --save
	$(BENCH)/augmentation.py --save
	$(BENCH)/volumes.py --save
	$(BENCH)/preprocessing.py --nnunet .bench-nnunet/bin/python --save
	$(BENCH)/losses.py --volume --save
	$(BENCH)/interactive.py --save
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/starts.py --save
	$(BIN)/python docs/performance.py

check: .venv/installed ## lint and format of Python and Snakemake files
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/python -m snakemake --lint

format: .venv/installed ## format Python and Snakemake files
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/snakefmt Snakefile rules

docs: .venv/installed ## write what is generated of docs/: keys of the configuration, claims, losses, architectures and their cost
	$(BIN)/python docs/configuration.py
	$(BIN)/python docs/claims.py
	$(BIN)/python docs/losses.py
	$(BIN)/python docs/performance.py
	$(BIN)/python docs/results.py
	$(BIN)/python benchmarks/architectures.py

slurm: .venv/installed ## add the Slurm plug-in (only where there is a Slurm: it slows every call elsewhere)
	$(BIN)/python -m pip install -r requirements-slurm.lock

# torch is pinned without a local version, and without the CUDA packages that its CUDA build asks for itself,
# so that CPU and CUDA builds both satisfy the lock.
lock: ## write the lock files from pyproject.toml
	$(BIN)/python -m pip install --disable-pip-version-check uv
	$(COMPILE) --extra test pyproject.toml --output-file requirements.lock
	sed -E -i '/^(cuda-|triton|nvidia-[^m])/d; s/^(torch==[^+ ]+)\+.*/\1/' requirements.lock
	$(COMPILE) --extra slurm --constraint requirements.lock pyproject.toml | grep -E '^(snakemake-executor|throttler)' > requirements-slurm.lock

clean: ## remove results, never the environment
	rm -rf results .snakemake
