# Needs GNU make and Python 3.11 or newer; everything else goes into .venv.
# Another interpreter: make test PYTHON=python3.12 (after make clean, if .venv is
# there). More for pytest: make test PYTEST_ARGS="-k bags".

PYTHON ?= python3
PYTEST_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -c constraints.txt
MODULES := $(wildcard sklearn_vad/*.py sklearn_vad/*/*.py)

.DEFAULT_GOAL := help
.PHONY: help demo test coverage lint docs notebooks bench clean
.NOTPARALLEL:  # one .venv, so one pip at a time
.DELETE_ON_ERROR:

help:  ## List the targets
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/make \1	\2/p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/plot.stamp  ## Train on synthetic videos and draw demo.png
	$(BIN)/python examples/demo.py

test: $(VENV)/test.stamp  ## Run all tests and docstring examples
	$(BIN)/python -m pytest -n 2 $(PYTEST_ARGS)

coverage: $(VENV)/test.stamp  ## Which lines and which errors the tests execute
	$(BIN)/python -m pytest --cov=sklearn_vad --cov-branch --cov-report=json $(PYTEST_ARGS)
	$(BIN)/python .ci/coverage.py coverage.json

lint: $(VENV)/lint.stamp  ## Check style, spelling and docstrings
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell
	$(BIN)/numpydoc lint $(MODULES)

docs: $(VENV)/docs.stamp  ## Build the site, docs/_build/html/index.html
	MPLBACKEND=agg $(BIN)/python -m sphinx -W --keep-going -n -b html \
	  -d docs/_build/doctrees docs docs/_build/html
	$(BIN)/python .ci/links.py docs/_build/html

notebooks: $(VENV)/docs.stamp  ## Make examples/notebooks of the scripts of the gallery
	$(BIN)/python .ci/notebooks.py

bench: $(VENV)/plot.stamp  ## Time every case beside the straightforward way and a floor
	$(BIN)/python benchmarks/speed.py $(BENCH_ARGS)
	$(BIN)/python benchmarks/speed.py report

clean:  ## Remove all that make, pip and the tools left here, .venv too
	rm -rf $(VENV) build dist *.egg-info demo.png videos_to_scores.png
	rm -rf docs/_build docs/auto_examples docs/generated docs/sg_execution_times.rst
	rm -rf .pytest_cache .ruff_cache .hypothesis .coverage coverage.json
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Stamps: each install happens once, and again when its versions change.
$(VENV)/plot.stamp: $(VENV)/python.stamp setup.py constraints.txt
	$(INSTALL) -e '.[plot]'
	@touch $@

$(VENV)/test.stamp: $(VENV)/python.stamp setup.py constraints.txt
	$(INSTALL) -e '.[test,plot,hdf5,video,onnx]'
	@touch $@

$(VENV)/docs.stamp: $(VENV)/python.stamp setup.py constraints.txt
	$(INSTALL) -e '.[docs]'
	@touch $@

$(VENV)/lint.stamp: $(VENV)/python.stamp constraints.txt
	$(INSTALL) codespell numpydoc ruff
	@touch $@

$(VENV)/python.stamp:
	@command -v $(PYTHON) >/dev/null || \
	  { echo "no $(PYTHON) found: install Python 3.11 or newer, or say PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.version_info >= (3, 11) or sys.exit("sklearn_vad needs Python 3.11 or newer, $(PYTHON) is " + v)'
	$(PYTHON) -m venv $(VENV)
	@touch $@
