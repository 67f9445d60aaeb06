# Every target sets itself up: a fresh machine needs only Python >= 3.11 with pip and venv.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

.PHONY: install demo test abuse check format bench same model onnx asked clean

# Of `make model`: a dataset of pleura prepare; the folder to work in; processes; what is trained, with which
# settings changed (as in pleura train), and what the card says, if anything: recipes/cards/default.yaml is about the
# NIH's radiographs, and right for a model of those alone.
DATA ?=
OUT ?= model
PROCESSES ?= 2
RECIPE ?= recipes/default.yaml
SETTINGS ?=
CARD ?=
# At most one negative in ten predicted positive: what is best for SIIM's 22 % positives finds half of them, for fewer false alarms.
TUNE ?= --objective dice_on_positives --specificity 0.9
# What its export is compared with PyTorch on; a validation part of fewer than 32 cases needs others, or --split all.
CERTIFY ?= --data "$(DATA)"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "pleura needs Python 3.11 or newer")'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

demo: install        ## the whole flow on phantom radiographs; writes demo/index.html
	$(BIN)/pleura demo --out demo

# By file: what a file's tests share is made once. In the order of the tree: the longest files do not come last.
test: install        ## every test, in as many processes as there are cores
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

abuse: install       ## 10,000 damaged files, read and sent to the service, within limits; 50 kills; 3,205 radiographs at a store
	PLEURA_MUTANTS=10000 $(BIN)/python -m pytest tests/abuse tests/serve/test_api_mutants.py
	PLEURA_KILLS=1000 PLEURA_LISTENER_KILLS=50 $(BIN)/python -m pytest tests/serve/test_inbox_killed.py tests/serve/test_listen_killed.py
	PLEURA_COPIES=3205 $(BIN)/python -m pytest tests/cluster/test_store_on_cluster.py

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

# A commit, as origin/main: the state before a change.
BASE ?= HEAD

same: install        ## whether this tree computes what BASE computed: files, weights, exit codes; BASE=rev
	$(BIN)/python tests/house/goldens.py --base "$(BASE)"

# On CPUs two processes of one thread were 1.5 times as fast as one process of two threads.
# Packed before it is tuned, so that triplet and calibration are of the very weights that are handed out.
model: asked install  ## the default model from a dataset: train (goes on where it was interrupted), pack, tune, score, export
	OMP_NUM_THREADS=1 $(BIN)/torchrun --standalone --nproc-per-node $(PROCESSES) \
		-m pleura train "$(RECIPE)" $(SETTINGS) --data "$(DATA)" --out "$(OUT)" --resume
	rm -f "$(OUT)/default.safetensors"
	$(BIN)/pleura pack "$(OUT)/fold-0" $(if $(CARD),--card "$(CARD)") --out "$(OUT)/default.safetensors"
	$(BIN)/pleura tune "$(OUT)/default.safetensors" --data "$(DATA)" $(TUNE)
	$(BIN)/pleura evaluate "$(OUT)/default.safetensors" --data "$(DATA)" --split val --out "$(OUT)/evaluation"
	$(BIN)/pleura card "$(OUT)/default.safetensors" --evaluation "$(OUT)/evaluation"
	rm -rf "$(OUT)/exported"
	$(BIN)/pleura export "$(OUT)/default.safetensors" $(CERTIFY) --out "$(OUT)/exported"
	@$(BIN)/python -c 'import hashlib, pathlib, sys; print("sha256", hashlib.sha256(pathlib.Path(sys.argv[1]).read_bytes()).hexdigest(), sys.argv[1])' \
		"$(OUT)/default.safetensors"

# Whenever default.safetensors in the package has changed, were it its header alone: both files say the same.
SHIPPED := src/pleura/models
onnx: asked install  ## the default model's default.onnx anew from its default.safetensors, certified on a dataset
	rm -rf build/onnx
	$(BIN)/pleura export $(SHIPPED)/default.safetensors $(CERTIFY) --out build/onnx
	mv build/onnx/default.onnx $(SHIPPED)/default.onnx

GOAL = $(or $(firstword $(filter-out asked install,$(MAKECMDGOALS))),model)
asked:
	@test -n "$(DATA)" || { echo "make $(GOAL): name a dataset of pleura prepare: make $(GOAL) DATA=path/to/dataset" >&2; exit 1; }
	@test -f "$(DATA)/card.json" || { echo "make $(GOAL): $(DATA): is no dataset of pleura prepare" >&2; exit 1; }

clean:
	rm -rf .venv demo build dist
