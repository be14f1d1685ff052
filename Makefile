# make demo   set up, then two Horovod workers train on real JPEGs
# make test   set up, then every test
# make check  the fast tier: lint and unit tests
# make setup  only set up: everything lands in .venv
PYTHON ?= python3
SHELL := /bin/bash
ACTIVATE := source .venv/bin/activate
NP ?= 2

.PHONY: setup demo test check lint clean

setup:
	@PYTHON=$(PYTHON) tools/setup.sh

demo: setup
	@$(ACTIVATE) && horovodrun -np $(NP) python train_imagenet.py --recipe demo $(ARGS)

test: setup lint
	@$(ACTIVATE) && python -m pytest $(ARGS)

check: setup lint
	@$(ACTIVATE) && python -m pytest tests/unit $(ARGS)

lint: setup
	@$(ACTIVATE) && ruff check . && ruff format --check .

clean:
	rm -rf .venv .pytest_cache .ruff_cache
