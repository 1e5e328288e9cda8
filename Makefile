# Everything from nothing, in a virtual environment of its own (.venv).
#
#   make demo     answer a question about a picture with all and with a tenth of its visual tokens
#   make test     the test suite
#   make bench    the speed table
#   make lint     what CI checks about style;  make format  puts it right
#   make clean    removes what the others made
PYTHON ?= python3
# Always installed first and by exact version: whatever needs torch later is then content, and pip
# never goes looking for one. It may hold options of pip's too, for an index with smaller CPU builds.
TORCH ?= torch==2.13.0
RUFF ?= ruff==0.17.6
CLANG_FORMAT ?= clang-format==23.1.5
BUILD_TOOLS := setuptools wheel pybind11 cmake ninja
PYTEST_ARGS ?=

VENV := .venv
BIN := $(VENV)/bin
CXX_FILES = $(shell find csrc -name '*.h' -o -name '*.hpp' -o -name '*.cpp' -o -name '*.cu*')

.PHONY: demo test bench lint format install clean

demo: install
	$(BIN)/python -m mi_pruner_cuda demo

test: install $(VENV)/transformers-4.57
	.ci/system-tools
	$(BIN)/python -m pytest $(PYTEST_ARGS)

bench: install
	$(BIN)/python bench/bench_select.py

lint: $(VENV)/lint-tools
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CXX_FILES)

format: $(VENV)/lint-tools
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CXX_FILES)

# Editable, so that the tests run on this tree. Building again compiles only what changed.
install: $(VENV)/build-tools
	MIPRUNER_WERROR=ON $(BIN)/pip install --quiet --no-build-isolation --editable '.[dev]'

$(VENV)/build-tools: pyproject.toml Makefile $(VENV)/pyvenv.cfg
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet $(BUILD_TOOLS)
	touch $@

# The oldest supported version, for one smoke test. Apart from the environment's own.
$(VENV)/transformers-4.57: Makefile $(VENV)/pyvenv.cfg
	rm -rf $@
	$(BIN)/pip install --quiet --target $@ transformers==4.57.6
	touch $@

$(VENV)/lint-tools: Makefile $(VENV)/pyvenv.cfg
	$(BIN)/pip install --quiet $(RUFF) $(CLANG_FORMAT)
	touch $@

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info mi_pruner_cuda/*.so mi_pruner_cuda/native .pytest_cache .ruff_cache .hypothesis
