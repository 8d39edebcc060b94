# Every target sets up .venv by itself, from the versions in constraints.txt.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CONFORMANCE := $(VENV)/sdist
DOCS := $(VENV)/.docs

.PHONY: help demo real ablation report test test-fast lint docs bench clean

help:
	@echo "make demo   pre-train and fine-tune on the built-in synthetic corpus, offline, in minutes (runs/demo)"
	@echo "make real   the same on real speech, which apt-get downloads from Debian's or Ubuntu's packages (runs/real)"
	@echo "make ablation NAME=density   one of recipes/ablations on the built-in corpus (runs/ablations)"
	@echo "make report gather everything below runs on one page (runs/report)"
	@echo "make test   run the tests"
	@echo "make test-fast   run those that take no longer than a minute together"
	@echo "make lint   ruff and pyright"
	@echo "make docs   build the pages of docs/ and the reference into site/, and check their links"
	@echo "make bench  measure objectives, features and training against what people would use instead"
	@echo "make clean  remove .venv and what was built; runs/ stays"

demo: $(READY)
	$(BIN)/mbt demo

real: $(READY)
	$(BIN)/mbt real

ablation: $(READY)
	$(BIN)/mbt ablation recipes/ablations/$(NAME).yaml

report: $(READY)
	$(BIN)/mbt report

test: $(READY) $(CONFORMANCE)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest

test-fast: $(READY)
	HF_HUB_OFFLINE=1 $(BIN)/python -m pytest -m "not slow"

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

docs: $(READY) $(DOCS)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

bench: $(READY)
	$(BIN)/python -m benchmarks.objectives
	$(BIN)/python -m benchmarks.features
	$(BIN)/python -m benchmarks.training
	$(BIN)/python -m benchmarks.finetuning
	$(BIN)/python -m benchmarks.startup
	$(BIN)/python -m benchmarks.embedding
	$(BIN)/python -m benchmarks.export

# The source distribution of transformers holds the tests that every model and feature extractor should pass.
$(CONFORMANCE): $(READY)
	$(BIN)/python -m pip download --quiet --no-deps --no-binary transformers --constraint constraints.txt \
		--dest $@ transformers && touch $@ || \
		ls $@/$$(sed -n 's/^\(transformers\)==\(.*\)$$/\1-\2/p' constraints.txt).tar.gz > /dev/null 2>&1 || \
		echo "The source distribution of transformers cannot be downloaded: its tests are skipped."

$(DOCS): $(READY)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[docs]"
	@touch $@

$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt "torch==2.13.0"
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[all]"
	@touch $@

clean:
	rm -rf $(VENV) site build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
