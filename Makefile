# Two commands for a new machine: `make demo` and `make test`. Both make .venv first; all they need is Python 3.11, make, git.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
LOWEST := $(VENV)/lowest

.PHONY: demo test lint lowest docs install clean

demo: install
	$(BIN)/nomoat demo

# Files run beside each other: OpenMP's threads sleep while they wait, and leave the CPUs to other files' tests (docs/tried/threads.md).
# PYTHONDONTWRITEBYTECODE, where it is set, would have each process that a test starts compile all of nomoat's modules: it is unset.
# --no-loadscope-reorder: files begin in tests/conftest.py's order, those with slow tests first, not in that of how many tests they have.
test: install
	PYTHONDONTWRITEBYTECODE= GOMP_SPINCOUNT=0 $(BIN)/python -m pytest -n logical --maxprocesses 4 --dist loadfile --no-loadscope-reorder

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# With the oldest release of each package that pyproject.toml allows, none of which may have to be compiled: they are tried, in an environment
# and a home of their own. By uv, as pip knows no oldest.
lowest: install
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(LOWEST)
	$(BIN)/uv pip install --quiet --python $(LOWEST) --resolution lowest-direct \
		--only-binary :all: --no-binary nomoat --no-binary rouge-score -e '.[serve]'
	NOMOAT_HOME=$(CURDIR)/$(LOWEST)/home $(LOWEST)/bin/python tests/lowest.py
	$(BIN)/uv pip install --quiet --python $(LOWEST) pytest pytest-timeout safetensors
	$(LOWEST)/bin/python -m pytest tests/serve/test_openai.py::test_adapters_of_one_base_are_served_on_one_copy_of_its_weights

docs: install
	$(BIN)/python docs/make_cli_reference.py

install: $(INSTALLED)

# Made anew when what is installed changes; the marker file comes last, so that a broken installation is tried again.
# All CPUs compile what is installed, of which pip uses one. Some files are not Python yet, such as templates: those are left.
$(INSTALLED): pyproject.toml
	$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("nomoat needs Python 3.11 or newer; try: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --progress-bar on --no-compile -e '.[dev]'
	$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib || true
	touch $@

clean:
	rm -rf $(VENV) .cache .pytest_cache .mypy_cache .ruff_cache
