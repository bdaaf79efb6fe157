# On a machine with Python 3.11 (or 3.12) and make:
#   make score    install into .venv, make a few labelled studies, score them beside real DICOM, print the table
#   make test     install into .venv and run every test
#   make lint     style and types
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_WORKERS ?= 2

# The stamp carries a checksum: other requirements, other pins, a fresh install; a touched file or a branch switched forth and back, none.
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)

export PIP_DISABLE_PIP_VERSION_CHECK := 1
export PIP_NO_INPUT := 1
# the examples name nobody, so their studies may be named under a known key; real runs make a key of their own
DEMO_KEY := mmclip-examples

.PHONY: score test lint install clean

score: install
	$(BIN)/python examples/make_studies.py examples/studies
	MMCLIP_SITE_KEY=$(DEMO_KEY) $(BIN)/mmclip score examples/studies --prompts chest14 --labels examples/studies/labels.csv --out mmclip-out

test: install
	$(BIN)/python -m pytest -n $(PYTEST_WORKERS) --dist worksteal

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

install: $(STAMP)

$(STAMP):
	@set -e; \
	for python in python3.11 python3.12 python3 python; do \
	  if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))' 2>/dev/null; then break; fi; \
	  python=; \
	done; \
	if [ -z "$$python" ]; then echo "mmclip needs Python 3.11 or 3.12, and none of python3.11, python3.12, python3, python is one." >&2; exit 1; fi; \
	if [ ! -x $(BIN)/python ]; then \
	  echo "making $(VENV) with $$python"; \
	  $$python -m venv $(VENV) || { echo "$$python cannot make virtual environments; on Debian and Ubuntu install $$(basename $$python)-venv." >&2; exit 1; }; \
	fi
	@echo "installing into $(VENV): some minutes on the first run, most of it downloads"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt torch hatchling editables
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[dev]'
	@rm -f $(VENV)/.installed-*
	@touch $@

clean:
	rm -rf $(VENV) mmclip-out examples/studies dist
