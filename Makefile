# Nothing is needed but Python >= 3.11 and make:
#   make search      draw a Pareto front on real photographs (results/efficient)
#   make test        run the tests but for the slow ones
#   make test-all    run all tests, also those with Ray, a browser, notebooks and databases
# Each builds its own environment in .venv. Another Python: make search PYTHON=python3.12
PYTHON ?= python3
SPACE ?= spaces/efficient.yaml
# One process a core, each computing on one thread.
TESTS ?= -n auto --dist worksteal
BIN := .venv/bin

.PHONY: search test test-all setup clean

search: .venv/installed
	$(BIN)/hfir-search run $(SPACE)

test: .venv/installed
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest $(TESTS) -m "not slow"

test-all: .venv/installed
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest $(TESTS)

setup: .venv/installed

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "hfir-search needs Python >= 3.11; $(PYTHON) is older. Name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

clean:
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis .import_linter_cache
