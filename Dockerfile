# The function's image: the model and its server, nothing that built them.
#
# Plain Dockerfile syntax on purpose: `sam build` uses Docker's classic builder, which knows no `--mount`, no here-documents
# and no TARGETARCH. The base is an argument, so nothing below may depend on a distribution: what differs is asked for with
# `command -v`. x86_64 and arm64 build from the same lines; the wheels and the compiled model are the build machine's.
#
#   docker build -t lambda-causal-lm .
#   docker build --build-arg MODEL=HuggingFaceTB/SmolLM2-135M-Instruct --build-arg MODEL_REVISION=<40-digit commit> .
#   docker build --build-arg ENGINE=compiled --build-arg QUANTIZE=int4 --build-arg CONTEXT_LENGTH=2048 .
#   docker build --build-arg PROMPTS=prompts/demo.json .

ARG BASE=public.ecr.aws/lambda/python:3.13

# ---- source: a model that cannot be served is refused before anything long is done ----
FROM ${BASE} AS source
# MODEL: a directory under models/, a hub id (then MODEL_REVISION, a commit, pins it), or `none` when MODEL_DIR will name a
# bucket or a mounted file system. ENGINE: `auto` turns the model into machine code where its architecture compiles and has
# transformers serve it where not; `compiled` and `transformers` allow only one of the two. PROMPTS: a file under prompts/,
# or a folder of them, that a compiled model has read already when it starts (docs/baked-prompts.md). QUANTIZE: `int8`,
# `int4`, `none`, or `auto`, which is int4 where that is within QUALITY_BOUND and int8 where not (docs/compiled-engine.md).
ARG MODEL=models/demo
ARG MODEL_REVISION=
ARG ENGINE=auto
ARG QUANTIZE=int8
ARG QUALITY_BOUND=0.02
ARG CONTEXT_LENGTH=
ARG PROMPTS=
WORKDIR /build
COPY api api
COPY compiler compiler
COPY engines engines
COPY generation generation
COPY image image
COPY startup startup
COPY models models
COPY prompts prompts
RUN python3 -m image.prepare_model "${MODEL}" /opt/model --revision "${MODEL_REVISION}" \
    --engine "${ENGINE}" --quantize "${QUANTIZE}" --quality-bound "${QUALITY_BOUND}" \
    --context-length "${CONTEXT_LENGTH}" --prompts "${PROMPTS}" --check

# ---- packages: what takes longest and is the same for every model ----
FROM ${BASE} AS packages
# A C++ compiler and pip where the base has none. The compiler's own libraries go into the image: a base may lack them.
RUN if command -v dnf >/dev/null; then dnf install -y gcc-c++ && dnf clean all; \
    elif command -v microdnf >/dev/null; then microdnf install -y gcc-c++ && microdnf clean all; \
    else apt-get update -q && apt-get install -y -q --no-install-recommends g++ python3-dev python3-pip; fi \
    && mkdir -p /opt/lib && for library in libstdc++.so.6 libgcc_s.so.1; do \
        cp -L "$(g++ -print-file-name=${library})" /opt/lib/; done

# CPU torch only: the index below has builds without CUDA. `build/wheels`, where it exists, replaces every index: how to
# build without the internet. The wildcard makes that folder optional. The compiled engine runs without the libraries that
# it was compiled with, so two sets are installed, and the image gets one of them.
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
WORKDIR /build
COPY image/install_packages.sh image/finish_packages.py image/
COPY requirements.txt build/wheels* wheels/
RUN image/install_packages.sh wheels/requirements.txt /opt/python \
    && PYTHONPATH=/opt/python python3 -c 'import sys, torch; sys.exit(torch.version.cuda and "this is a CUDA build of torch")' \
    && python3 image/finish_packages.py installed /opt/python
RUN grep -vE '^(torch|transformers|accelerate|safetensors)=' wheels/requirements.txt >wheels/requirements-compiled.txt \
    && image/install_packages.sh wheels/requirements-compiled.txt /opt/python-compiled \
    && python3 image/finish_packages.py installed /opt/python-compiled

# ---- build: the model prepared and the packages that it needs; only what is copied out of here is in the image ----
FROM packages AS build
ARG MODEL=models/demo
ARG MODEL_REVISION=
ARG ENGINE=auto
ARG QUANTIZE=int8
ARG QUALITY_BOUND=0.02
ARG CONTEXT_LENGTH=
ARG PROMPTS=
# A mirror of the hub.
ARG HF_ENDPOINT=https://huggingface.co
COPY --from=source /build .
RUN PYTHONPATH=/build:/opt/python python3 -m image.prepare_model "${MODEL}" /opt/model --revision "${MODEL_REVISION}" \
    --engine "${ENGINE}" --quantize "${QUANTIZE}" --quality-bound "${QUALITY_BOUND}" \
    --context-length "${CONTEXT_LENGTH}" --prompts "${PROMPTS}"
RUN if [ "${ENGINE}" = compiled ] || [ -e /opt/model/manifest.json ]; then \
        rm -rf /opt/python && mv /opt/python-compiled /opt/python; \
    else python3 image/finish_packages.py prepared /opt/python; fi

COPY api /var/task/api
COPY aws /var/task/aws
COPY engines /var/task/engines
COPY generation /var/task/generation
COPY server /var/task/server
COPY startup /var/task/startup
COPY *.py image/bootstrap /var/task/
RUN rm -rf /var/task/engines/native && python3 -m compileall -q --invalidation-mode unchecked-hash /var/task \
    && chmod -R a+rX /var/task /opt/model
# What a start with a compiled model imports, in one file instead of two hundred. The bundle serves modules of the time and
# size that it saw, and Docker may take a layer of equal content from another build: one time for all, whoever built them.
RUN if [ -e /opt/model/manifest.json ]; then find /var/task /opt/python -exec touch --no-dereference --date=@0 {} + \
    && cd /var/task && PYTHONPATH=/var/task:/opt/python:/build MODEL_DIR=/opt/model \
    python3 -m image.bundle_modules startup/modules.bin; fi

# ---- the image ----
# checkov:skip=CKV_DOCKER_2:Lambda asks the runtime client for its health; as a server the image has GET /health
# checkov:skip=CKV_DOCKER_3:aws.entry gives up root, see below
# checkov:skip=CKV_DOCKER_7:the base's tag is in the build argument
FROM ${BASE}
LABEL com.amazonaws.lambda.feature.snapstart="Allow"
COPY --from=build /opt/python /opt/python
COPY --from=build /opt/lib /opt/lib
COPY --from=build /opt/model /opt/model
COPY --from=build /var/task /var/task
ARG MODEL_NAME=demo
ENV LAMBDA_TASK_ROOT=/var/task \
    PYTHONPATH=/var/task:/opt/python \
    LD_LIBRARY_PATH=${LD_LIBRARY_PATH:-/usr/lib}:/opt/lib \
    LC_ALL=C \
    PYTHONDONTWRITEBYTECODE=1 \
    MODEL_DIR=/opt/model \
    MODEL_NAME=${MODEL_NAME} \
    HF_HUB_OFFLINE=1 \
    HF_HOME=/tmp/huggingface
WORKDIR /var/task
# A model that does not load, or lacks a library, fails here and not at the first cold start.
ARG MODEL=models/demo
RUN if [ "${MODEL}" != none ]; then python3 -c 'import handler' && rm -rf /tmp/*; fi
# No USER: Lambda ignores it, and `sam local` adds its emulator to the image with commands that need root. `aws.entry` gives
# up root before anything else is imported, so the model runs as nobody wherever the image is started.
# Another command, the same image: docker run -p 8080:8080 -e HOST=0.0.0.0 -e PORT=8080 IMAGE server
ENTRYPOINT ["python3", "-m", "aws.entry"]
CMD ["aws.runtime", "handler.lambda_handler"]
