#!/bin/sh
# Install requirements file $1 into folder $2, from wheels only: from build/wheels where that exists, else from the indexes.
set -eu
sources="--extra-index-url ${TORCH_INDEX}"
if ls /build/wheels/*.whl >/dev/null 2>&1; then sources="--no-index --find-links /build/wheels"; fi
# shellcheck disable=SC2086 # several words on purpose
python3 -m pip install --quiet --no-cache-dir --no-compile --only-binary :all: --root-user-action ignore \
    --disable-pip-version-check ${sources} --target "$2" --requirement "$1"
