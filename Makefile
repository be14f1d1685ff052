# make demo     set up, then two Horovod workers train on real JPEGs
# make test     set up, then every test; as root on Debian it installs what tests need beside .venv
# make test-quick   five minutes of them, which notice most mistakes
# make check    the fast tier: lint and unit tests
# make lint     ruff, the type checker, and the links of the pages
# make study    the paper's tables and figures in miniature: 71 minutes on 2 cores, alone
# make test-busy    every test while a loop keeps each core busy: none may depend on how long things take
# make test-gpu the tests of the GPU, on a machine that has one
# make nightly  a run killed 200 times, at other moments each time
# make distributions    as root: the demo and the fast tests on three Debians, half an hour alone; SUITES="jammy noble" are others
# make container    as root: the container's root and the demo in it, 6 minutes and 10 GB
# make patches  Horovod built after each of its patches; installs nothing
# make wheel    this project and its Horovod as two wheels in dist/, for nodes that build nothing
# make setup    only set up: everything lands in .venv; CUDA=12 or CUDA=13 chooses against the driver
PYTHON ?= python3
SHELL := /bin/bash
ACTIVATE := source .venv/bin/activate
NP ?= 2
KILLS ?= 200
SUITES ?= bookworm trixie testing
SEED := $(or $(SEED),$(shell date +%s))

STUDY ?= runs/study
TEST := python -m pytest -n 3 --by-file

.PHONY: setup demo test test-quick test-busy test-gpu check study nightly distributions container lint wheel patches clean

setup:
	@PYTHON=$(PYTHON) tools/setup.sh

# On CPUs: two processes cannot share the one GPU that a workstation has.
demo: setup
	@$(ACTIVATE) && horovodrun -np $(NP) python train_imagenet.py --recipe demo --device cpu $(ARGS)

test: setup lint
	@tools/install_test_packages.sh
	@$(ACTIVATE) && $(TEST) $(ARGS)

test-quick: setup lint
	@$(ACTIVATE) && $(TEST) -m "not long" $(ARGS)

test-busy: setup
	@tools/install_test_packages.sh
	@$(ACTIVATE) && trap 'kill $$(jobs -p)' EXIT && \
		for core in $$(seq $$(nproc)); do while :; do :; done & done; $(TEST) $(ARGS)

# -v tells each test when it ends: a decoder or a compiler may hang.
test-gpu: setup
	@$(ACTIVATE) && python -m pytest -n 4 -v --durations=0 tests/gpu $(ARGS)

check: setup lint
	@$(ACTIVATE) && python -m pytest -n 2 -m "not long" tests/unit $(ARGS)

study: setup
	@mkdir -p $(STUDY)
	@$(ACTIVATE) && python -m benchmarks.study --output $(STUDY) --json $(STUDY)/study.json \
		--plot $(STUDY)/errors.png --curves $(STUDY)/curves.png $(ARGS)

nightly: setup
	@echo "to repeat: make nightly KILLS=$(KILLS) SEED=$(SEED)"
	@$(ACTIVATE) && KILLS=$(KILLS) SEED=$(SEED) python -m pytest -s tests/parallel/run/test_kills.py $(ARGS)

distributions:
	@for suite in $(SUITES); do tools/try_distribution.sh $$suite || exit; done

container: setup
	@tools/try_container.sh

wheel: setup
	@$(ACTIVATE) && python -m pip wheel -q --no-deps --no-build-isolation -w dist . && \
		python tools/install_horovod.py --log .setup/horovod.log --wheel dist

patches: setup
	@$(ACTIVATE) && python tools/build_each_patch.py

lint: setup
	@$(ACTIVATE) && ruff check . && ruff format --check . && mypy && \
		python -m pytest -q tests/docs/test_links.py

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
