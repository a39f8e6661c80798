PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
export OMP_NUM_THREADS ?= 2
export HF_HUB_OFFLINE ?= 1

.PHONY: setup demo test slow lint bench bench-lerobot notebooks docs gpu clean

setup: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(0 if (3, 11) <= sys.version_info < (3, 14) else f"wam needs Python 3.11 to 3.13, this is {sys.version.split()[0]}; run make PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt -e '.[sim,formats,dev]'
	touch $@

demo: setup
	$(BIN)/wam demo

test: setup lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --durations=10

slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

gpu: setup
	$(BIN)/python -m pytest -m gpu
	$(BIN)/wam bench step

clean:
	rm -rf $(VENV) .venv-lerobot build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache
