# Measurements. What they need beside the project is installed on first use.
.PHONY: bench bench-quick bench-peers bench-report
PEERS := build/benchmarks/peers
BENCH := $(BIN)/python -m benchmarks
BENCH_MODELS ?= --model transformers=SmolLM2-135M --model int8=SmolLM2-135M:int8 --model int4=SmolLM2-135M:int4
BENCH_OURS ?= --model int8=SmolLM2-135M:int8 --model int4=SmolLM2-135M:int4

bench: $(VENV)/bench-ready  ## every measurement that runs here; half an hour on a quiet machine
	$(BENCH) cold-start $(BENCH_MODELS) $(if $(IMAGE),--image container=$(IMAGE)) --runs 15
	$(BENCH) warm $(BENCH_MODELS) --calls 100
	$(BENCH) roofline --warm benchmarks/results/warm.json
	$(BENCH) peers $(BENCH_OURS) --starts 10 --calls 30
	$(BENCH) memory $(BENCH_MODELS)
	$(BENCH) fidelity
	$(BENCH) load --model int8=SmolLM2-135M:int8
	$(BENCH) break-even --variant int8 --cold-start benchmarks/results/cold-start.json \
	    --warm benchmarks/results/warm.json
	$(BENCH) report

bench-quick: $(VENV)/bench-ready  ## the same in a few minutes, rougher, into build/benchmarks/quick
	$(BENCH) cold-start --model demo=models/demo --runs 3 --out build/benchmarks/quick
	$(BENCH) warm --model demo=models/demo --calls 20 --out build/benchmarks/quick
	$(BENCH) roofline --repeats 5 --model models/demo --warm build/benchmarks/quick/warm.json --out build/benchmarks/quick
	$(BENCH) peers --checkpoint models/demo --starts 2 --calls 3 --out build/benchmarks/quick
	$(BENCH) memory --model demo=models/demo --prompt 256 --out build/benchmarks/quick
	$(BENCH) break-even --quick --cold-start build/benchmarks/quick/cold-start.json \
	    --warm build/benchmarks/quick/warm.json --out build/benchmarks/quick

bench-report: $(VENV)/bench-ready  ## tables, plots and quoted documents again from the committed results
	$(BENCH) report

# Each line of the requirements is one peer with what its conversion needs, in an environment of its own.
bench-peers:  ## install llama.cpp and CTranslate2, each by itself, to be measured beside
	@grep -v '^#' benchmarks/requirements-peers.txt | while read -r packages; do \
	    peer=$(PEERS)/$${packages%%==*}; \
	    echo "Setting up $$peer ..."; \
	    $(PYTHON) -m venv $$peer && $$peer/bin/pip install --quiet $$packages || exit 1; \
	done

$(VENV)/bench-ready: $(VENV)/ready benchmarks/requirements.txt
	@$(BIN)/pip install --quiet -r benchmarks/requirements.txt
	@touch $@
