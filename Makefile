# One way to do each thing. `make help` lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

# Half as many again as there are cores: many tests wait for a process or for a clock.
JOBS ?= $(shell n=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2); echo $$(( (n * 3 + 1) / 2 )))

.DEFAULT_GOAL := help
.PHONY: help demo test lint docs bench reliability live clean

help:  ## list what there is
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "mautic-sync needs Python 3.11 or later; say make PYTHON=python3.12 ..."; exit 1; }
	@echo "Setting up $(VENV) (once) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade 'pip>=25.1'
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable . --group dev
	@touch $@

demo: $(STAMP)  ## show the whole thing on this machine, without accounts
	@$(BIN)/mautic-sync demo

test: $(STAMP)  ## run the tests
	@$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(STAMP)  ## check style and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

docs: $(STAMP)  ## write the reference pages from the program itself
	@$(BIN)/python docs/reference.py

bench: $(STAMP)  ## measure speed and memory (an hour; less with ARGS=--quick SCORES=20000)
	@$(BIN)/python -m tests.bench $(ARGS)
	@$(BIN)/python -m tests.bench.scores $(SCORES)

reliability: $(STAMP)  ## kill the worker 200 times while calls fail, compare the books; random tests at length (half an hour)
	@KILLS=$${KILLS:-200} $(BIN)/python -m pytest --capture no tests/reliability tests/pipeline/test_points.py \
		tests/pipeline/test_faults.py tests/pipeline/test_main_job.py tests/store/test_carried.py tests/store/test_due.py $(ARGS)

live: $(STAMP)  ## run the main job against the real Mautic in MAUTIC_SYNC_LIVE_URL
	@$(BIN)/python -m pytest tests/live $(ARGS)

clean:  ## remove what make made
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
