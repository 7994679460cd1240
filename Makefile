# The commands of the project. `make` alone lists them.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
CPU_WHEELS := https://download.pytorch.org/whl/cpu
TORCH := $(shell sed -n 's/^torch==/torch==/p' requirements.txt)
RIE := $(VENV)/aws-sam-cli
# Two processes, each file's tests in one: half of the time is spent waiting, for g++, for a server to start. Files by
# name, or those with the fewest tests, which take longest, would be begun last.
SIDE_BY_SIDE := -n 2 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help run compare test test-slow test-attack check format clean

help:  ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: $(VENV)/ready  ## start the function under Lambda's runtime client and emulator, send it events/, show what happened
	@$(BIN)/python -m tools.run_demo

compare: $(VENV)/ready  ## compile the model (once; needs g++) and show its cold start beside that of transformers
	@$(BIN)/python -m tools.compare_engines

test: $(VENV)/ready  ## the quick tests, which need Python and g++
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m "not slow and not attack and not clients and not container"

test-slow: $(VENV)/ready $(VENV)/lm-eval/ready  ## the tests that take minutes
	$(BIN)/python -m pytest $(SIDE_BY_SIDE) -m slow

test-attack: $(VENV)/ready  ## hostile callers in numbers, on the loopback interface; ATTACK_REPORT names a file for the figures
	ATTACK_REPORT=$(ATTACK_REPORT) $(BIN)/python -m pytest -m attack

check: $(VENV)/ready  ## formatter, linter, type checker
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(VENV)/ready  ## let the formatter and the linter fix what they can
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:  ## remove everything that was installed or built
	rm -rf $(VENV) build .aws-sam

# torch: the CPU build where PyTorch's index can be reached, else whatever pip is set up to find. The emulator is a
# binary inside aws-sam-cli; that package's own dependencies, pinned against ours, stay out.
$(VENV)/ready: requirements.txt requirements-dev.txt benchmarks/requirements.txt
	@echo "Setting up $(VENV) (once; a minute or two) ..."
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed: make PYTHON=...")'
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --retries 1 --index-url $(CPU_WHEELS) $(TORCH) 2>/dev/null || $(BIN)/pip install --quiet $(TORCH)
	@$(BIN)/pip install --quiet -r requirements-dev.txt
	@$(BIN)/pip install --quiet --no-deps --upgrade --target $(RIE) aws-sam-cli==1.170.0
	@touch $@

# lm-eval, whose dependencies are many, in an environment of its own.
$(VENV)/lm-eval/ready: requirements-lm-eval.txt
	@echo "Setting up $(@D) (once; a minute or two) ..."
	@$(PYTHON) -m venv $(@D)
	@$(@D)/bin/pip install --quiet --retries 1 --index-url $(CPU_WHEELS) $(TORCH) 2>/dev/null || $(@D)/bin/pip install --quiet $(TORCH)
	@$(@D)/bin/pip install --quiet -r $<
	@touch $@

-include $(wildcard make/*.mk)
