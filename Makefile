# Two commands do everything: `make demo` and `make test`. Each makes the environment it needs.
PYTHON ?= python3
VENV ?= .venv
DEMO ?= demo
# Real images for the tests that use them; without them those tests are skipped with a reason.
EDGEKD_DATA ?= $(abspath ../shared/data)

PY_TAG := $(shell $(PYTHON) -c 'import sys; print("py%d%d" % sys.version_info[:2])')
LOCK := requirements/$(PY_TAG).txt
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed-$(PY_TAG)

.PHONY: help env demo test lint wheel bench lock clean

help:  ## show the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

env: $(STAMP)  ## make the environment in .venv from the lock file

$(LOCK):
	@echo "There is no lock file for this Python ($(PY_TAG)); there is one for: $$(ls requirements)." >&2
	@echo "Name another interpreter: make PYTHON=python3.11 ..." >&2
	@exit 2

$(STAMP): $(LOCK) pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r $(LOCK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(STAMP)  ## the whole way on synthetic ultrasound, to demo/report.html
	rm -rf $(DEMO)
	$(BIN)/edgekd demo --out $(DEMO)

test: $(STAMP)  ## every test that this machine can run
	EDGEKD_DATA=$(EDGEKD_DATA) $(BIN)/python -m pytest

lint: $(STAMP)  ## format, style, types, import rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports
	$(BIN)/pyright --pythonpath $(BIN)/python

wheel: $(STAMP)  ## the wheel, to dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist

bench: $(STAMP)  ## latency of every engine that runs here, on the demo's student
	test -d $(DEMO) || $(MAKE) demo
	$(BIN)/edgekd benchmark $(DEMO)/run/student.edgekd --out $(DEMO)/benchmark-$$(date +%Y%m%d-%H%M%S)

lock: $(STAMP)  ## resolve the versions anew for this Python
	./requirements/resolve.sh $(BIN) $(PY_TAG)

clean:  ## remove the environment and everything that was built
	rm -rf $(VENV) $(DEMO) build dist *.egg-info .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +
