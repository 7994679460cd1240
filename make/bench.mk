# Measurements. The results that are committed are of these commands.
.PHONY: bench bench-images bench-quick bench-peers bench-report
PEERS := build/benchmarks/peers
TRAINED := build/benchmarks/trained
BENCH := $(BIN)/python -m benchmarks
BENCH_OURS ?= --model "compiled int8=SmolLM2-135M:int8" --model "compiled int4=SmolLM2-135M:int4"
BENCH_TWO ?= --model transformers=SmolLM2-135M --model "compiled int8=SmolLM2-135M:int8"
BENCH_MODELS ?= --model transformers=SmolLM2-135M $(BENCH_OURS)

BENCH_IMAGES := transformers:demo compiled:demo transformers:smollm2-135m compiled:smollm2-135m

bench: $(VENV)/ready  ## every measurement that runs here, one after the other: hours on a quiet machine
	$(BENCH) cold-start $(BENCH_MODELS) --model "compiled int8, verified=SmolLM2-135M:int8,VERIFY_ARTIFACT=true" --runs 9
	$(BENCH) cold-start $(BENCH_TWO) --cache cold --runs 5 --name cold-start-disk
	$(BENCH) cold-start $(BENCH_TWO) --memory-mb 512 --memory-mb 1024 --memory-mb 1769 --memory-mb 3538 \
	    --memory-mb 10240 --runs 3 --name cold-start-memory
	if docker image inspect $(BENCH_IMAGES) >/dev/null 2>&1; then $(BENCH) cold-start \
	    $(foreach image,$(BENCH_IMAGES),--image $(subst :,-,$(image))=$(image)) --cache both --runs 5 \
	    --name cold-start-container && $(BENCH) cold-start --image transformers-smollm2-135m=transformers:smollm2-135m \
	    --image compiled-smollm2-135m=compiled:smollm2-135m --memory-mb 1024 --runs 5 --name cold-start-container-memory; \
	else echo "No images to measure here (make bench-images): the container's cold start is left out"; fi
	$(BENCH) warm $(BENCH_MODELS) --calls 7
	$(BENCH) warm --model "compiled int8=SmolLM2-135M:int8" --prompt 16 128 512 --output 32 --prompts 1 --calls 100 \
	    --name warm-tail
	$(BENCH) warm --model "0.5B, int8=Qwen2.5-0.5B:int8" --model "1.5B, int8=Qwen2.5-1.5B:int8" \
	    --prompt 128 512 1500 --output 32 --prompts 1 --calls 5 --name warm-qwen
	$(BENCH) roofline --model SmolLM2-135M --model Qwen2.5-0.5B --warm benchmarks/results/warm.json
	$(BENCH) peers $(BENCH_OURS) --starts 5 --calls 5
	$(BENCH) peers --checkpoint Qwen2.5-0.5B --model "compiled int8=Qwen2.5-0.5B:int8" \
	    --model "compiled int4=Qwen2.5-0.5B:int4" --only "transformers bfloat16" --only int8 --only int4 --prompt 18 128 512 \
	    --starts 5 --calls 5 --name peers-qwen
	$(BENCH) peers --checkpoint models/demo --model "compiled int8=models/demo:int8" \
	    --model "compiled int4=models/demo:int4" --prompt 18 128 --starts 3 --calls 3 --name peers-demo
	$(BENCH) batch $(BENCH_OURS) $(if $(BENCH_BEFORE),--before $(BENCH_BEFORE)) --calls 3
	$(BENCH) memory $(BENCH_MODELS)
	$(BENCH) memory --model "compiled int8=SmolLM2-135M:int8+1000" --processes 8 --prompt 1020 --name memory-baked
	$(BENCH) fidelity --peers
	$(BIN)/python -m benchmarks.fidelity.trained $(TRAINED)
	$(BENCH) fidelity --peers --checkpoint $(TRAINED)/llama-6m --quantize int4 --name fidelity-llama-6m
	$(BENCH) fidelity --peers --checkpoint $(TRAINED)/llama-6m-outliers --quantize int4 int4-uncalibrated \
	    --name fidelity-llama-6m-outliers
	$(BENCH) fidelity --peers --checkpoint $(TRAINED)/qwen2-9m --quantize int4 int4-uncalibrated --name fidelity-qwen2-9m
	$(BENCH) streaming $(BENCH_TWO) --calls 5
	$(BENCH) drafts --peers-of SmolLM2-135M --rounds 3
	$(BENCH) prefix --runs 12
	$(BENCH) cold-start --model short=SmolLM2-135M:int8 --model baked=SmolLM2-135M:int8+1000 --model read=SmolLM2-135M:int8 \
	    --prompt short=20 --prompt baked=1020 --prompt read=1020 --cache both --runs 7 --name cold-start-baked
	$(BENCH) compile --model SmolLM2-135M:int8 --model SmolLM2-135M:int4
	$(BENCH) compile --model Qwen2.5-1.5B:int8 --name compile-qwen
	$(BENCH) shapes --model "compiled int8=SmolLM2-135M:int8" --model "compiled int8, Qwen=Qwen2.5-0.5B:int8" \
	    --peers-of SmolLM2-135M --rounds 3 --calls 5
	$(BENCH) deadlines --model "compiled int8=SmolLM2-135M:int8" --calls 6
	$(BENCH) load --model "compiled int8=SmolLM2-135M:int8" --workers 1 2 4 --rate 2 4 8 16 --seconds 12
	$(BENCH) break-even --variant "compiled int8" --cold-start benchmarks/results/cold-start.json \
	    --warm benchmarks/results/warm.json
	$(BENCH) distributed-map
	$(BENCH) report

# The checkpoint of SmolLM2-135M's shape goes where a user's own would, beside the demo.
bench-images: $(VENV)/ready  ## build the images that `make bench` measures: either engine, two models
	$(BIN)/python -c 'from benchmarks.checkpoints import checkpoint; checkpoint("SmolLM2-135M")'
	cp -r build/benchmarks/checkpoints/SmolLM2-135M models/smollm2-135m
	for model in demo smollm2-135m; do for engine in compiled transformers; do \
	    DOCKER_BUILDKIT=0 docker build --quiet --build-arg BASE=$(BASE_IMAGE) --build-arg ENGINE=$$engine \
	        --build-arg MODEL=models/$$model --tag $$engine:$$model . || exit 1; done; done
	rm -r models/smollm2-135m

bench-quick: $(VENV)/ready  ## the same in a few minutes, rougher, into build/benchmarks/quick
	$(BENCH) cold-start --model demo=models/demo --runs 3 --out build/benchmarks/quick
	$(BENCH) warm --model demo=models/demo --prompt 16 128 256 --calls 20 --out build/benchmarks/quick
	$(BENCH) roofline --repeats 5 --model models/demo --warm build/benchmarks/quick/warm.json --out build/benchmarks/quick
	$(BENCH) peers --checkpoint models/demo --prompt 18 128 --starts 2 --calls 3 --out build/benchmarks/quick
	$(BENCH) memory --model demo=models/demo --prompt 256 --out build/benchmarks/quick
	$(BENCH) break-even --quick --cold-start build/benchmarks/quick/cold-start.json \
	    --warm build/benchmarks/quick/warm.json --out build/benchmarks/quick

bench-report: $(VENV)/ready  ## tables, plots and quoted documents again from the committed results
	$(BENCH) report

# Each line of the requirements is one peer with what its conversion needs, in an environment of its own.
bench-peers:  ## install llama.cpp, CTranslate2 and OpenVINO, each by itself, to be measured beside
	@grep -v '^#' benchmarks/requirements-peers.txt | while read -r packages; do \
	    peer=$(PEERS)/$${packages%%==*}; \
	    echo "Setting up $$peer ..."; \
	    $(PYTHON) -m venv $$peer && $$peer/bin/pip install --quiet $$packages || exit 1; \
	    $$peer/bin/pip uninstall --quiet --yes torchvision; \
	done  # torchvision comes with optimum-intel and does not fit this torch
