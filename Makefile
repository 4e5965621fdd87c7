# make demo | test | lint | dist | clean. Each sets up .venv by itself, once; PYTHON=python3.12 picks another Python.
# torch: pip takes the CPU build where one is offered, else the CUDA build of some gigabytes. To be sure of the small one:
#   PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu make demo
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SOURCES := src tests benchmarks examples

ifeq ($(NETSUKE_DATA),)
ifneq ($(wildcard ../shared/data/.),)
export NETSUKE_DATA := $(abspath ../shared/data)
endif
endif

.PHONY: demo test lint format dist clean
.NOTPARALLEL:  # two targets must not install into one environment at the same time

demo: $(VENV)/.lab
	@mkdir -p demo
	$(BIN)/netsuke shrink --data digits --max-bytes 2048 --effort quick -o demo/digits.netsuke
	$(BIN)/python examples/sample_digit.py 7 demo/seven.png
	$(BIN)/netsuke read demo/seven.png --model demo/digits.netsuke

# One file stays with one worker: fixtures that train or compile are made once.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile -rs $(ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/mypy

format: $(VENV)/.dev
	$(BIN)/ruff check --fix $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

dist: $(VENV)/.dev
	$(BIN)/python -m build --no-isolation --outdir dist

clean:
	rm -rf $(VENV) dist build demo .pytest_cache .hypothesis .mypy_cache .ruff_cache
	find src tests benchmarks examples -name __pycache__ -prune -exec rm -rf {} +

# The stamp of an extra is touched last, so that an interrupted installation is taken up again.
$(VENV)/.%: pyproject.toml
	@echo "setting up $(VENV) for '$*': torch and friends, about a minute, only this once"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -e '.[$*]'
	@touch $@
	@echo "$(VENV) is ready"
