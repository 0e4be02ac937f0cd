# make demo   a video from words, in demo/
# make serve  the server, with its page, at http://127.0.0.1:8000
# make test   style, types and tests, a few of them also for other instruction sets and one thread
# make lint   style and types alone
# make clean  remove what these wrote, but not the environment in .venv

PYTHON ?= python3
BIN := .venv/bin

# With the constraints exported, no later `pip install` in this environment can swap torch for another.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export OMP_WAIT_POLICY := PASSIVE

NUMERIC_TESTS := tests/nn tests/models tests/generation tests/training

.PHONY: help demo serve test lint clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# make /make /p' Makefile

demo: .venv/.installed
	$(BIN)/kinema generate "a rocket rises into the night sky over a snowy plain" -o demo/rocket.mp4

serve: .venv/.installed
	$(BIN)/kinema serve

test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -m portable $(NUMERIC_TESTS)
	ATEN_CPU_CAPABILITY=avx2 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m portable --bf16 $(NUMERIC_TESTS)

lint: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf demo build dist .pytest_cache .mypy_cache .ruff_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/.installed: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e .
	@touch $@

.venv/.installed-dev: pyproject.toml constraints.txt | $(BIN)/python
	$(BIN)/python -m pip install -c constraints.txt -e '.[dev]'
	@touch $@ .venv/.installed

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "Kinema needs Python 3.11 or newer; name one with: make PYTHON=python3.12 ..." >&2; exit 1; }
	$(PYTHON) -m venv .venv
