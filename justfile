# The words of the project: the same at hand and in continuous integration. `make setup` comes first.
export PATH := justfile_directory() / ".venv/bin" + ":" + env("PATH")
export OMP_NUM_THREADS := "1"
export OMP_WAIT_POLICY := "PASSIVE"

# List the words
default:
    @just --list

# Build .venv
setup:
    make setup

# Format the code
fmt:
    ruff format
    ruff check --fix

# Style and common errors
lint:
    ruff format --check
    ruff check

# Static types
types:
    pyright

# Which layer may import which
imports:
    lint-imports

# Tests but for the slow ones, one process a core
test *args='-n auto --dist worksteal':
    python -m pytest -m "not slow" {{args}}

# All tests, one process a core
test-all *args='-n auto --dist worksteal':
    python -m pytest {{args}}

# The main job in its smallest honest form, in a folder of its own
smoke folder=`mktemp -d`:
    hfir-search run spaces/smoke.yaml --out {{folder}}/smoke
    hfir-search front {{folder}}/smoke
    hfir-search select {{folder}}/smoke --latency-ms 1000

# Write spaces/schema.json anew
schema:
    python -c "from pathlib import Path; from search.experiment.schema import write_schema; write_schema(Path('spaces/schema.json'))"

# Write the golden files anew; review the diff
golden:
    python tests/golden/regenerate.py
    python tests/golden/outputs.py

# Execute the notebooks anew, in place
notebooks:
    python tests/execute_notebooks.py

# One script of benchmarks/, e.g. `just bench bicubic_table DATA`
bench script *args:
    python benchmarks/{{script}}.py {{args}}

# All that must hold before a commit
check: lint types imports test
