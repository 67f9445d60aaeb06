# Every target sets itself up: a fresh machine needs only Python >= 3.10 with pip and venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test check format bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "pleura needs Python 3.10 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install        ## the whole flow on phantom radiographs; writes demo/index.html
	$(BIN)/pleura demo --out demo

test: install        ## every test
	$(BIN)/python -m pytest

check: install       ## format, lint, types, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/house

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: install       ## the ratios of docs/benchmarks.md, each from one run
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench]'
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done

clean:
	rm -rf .venv demo build dist
