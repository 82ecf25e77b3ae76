# `make demo` shows what finevote does, `make test` checks it; both set up .venv first when it is missing.
# PYTHON=... names the interpreter to set up with, WORKERS=... the number of test processes,
# BENCH=... the backbones, sizes and rounds of `finevote bench`.

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/setup.done
WORKERS ?= 2
BENCH ?= --backbone dinov2_vits14 --backbone dinov2_vitb14 --size 224 --size 448 --size 518 --rounds 5
export PYTHON

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all check format bench docs clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile

$(READY): pyproject.toml constraints.txt
	@tools/setup.sh

setup: $(READY)  ## make .venv with the pinned packages

demo: $(READY)  ## train, measure and draw a voting classifier on drawn pictures
	@$(BIN)/finevote demo

test: $(READY)  ## the tests, the slow ones too; what CI runs
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not long"

test-all: $(READY)  ## every test, those too that take most of a minute each
	@$(BIN)/python -m pytest -n $(WORKERS)

check: $(READY)  ## format, lint, types, import contracts, fast tests; offline
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo
	@$(BIN)/python -m pytest -n $(WORKERS) -m "not slow"

format: $(READY)  ## format and mend what ruff can mend
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY)  ## measure time, memory and operations beside the plain backbone's; hours, on an idle machine
	@$(BIN)/finevote bench $(BENCH) --precision fp32 --precision bf16 --device cpu --contender benchmarks.naive:NAIVE \
		--out benchmarks/results/cpu
	@$(BIN)/finevote bench step $(BENCH) --mode compile --device cpu --out benchmarks/results/cpu_compile
	@! $(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())" || $(BIN)/finevote bench step memory \
		$(BENCH) --precision bf16 --mode eager --mode compile --batch 32 --device cuda --out benchmarks/results/cuda

docs: $(READY)  ## check that the links and code names of the documents exist
	@$(BIN)/python -m pytest -q tests/house/test_docs.py

clean:  ## remove caches and build products; keeps .venv and runs/
	@rm -rf .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis build dist
	@find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
