#!/bin/sh
# Install requirements file $1 into folder $2 of the image: wheels only, nothing unreachable, all of it byte-compiled.
#
# Byte code is never checked against its source at import (unchecked-hash): one `stat` less per module, and file times that
# a copy changed cannot make it stale. A module without byte code would be compiled anew at every cold start.
set -eu
sources="--extra-index-url ${TORCH_INDEX}"
if ls /build/wheels/*.whl >/dev/null 2>&1; then sources="--no-index --find-links /build/wheels"; fi
# shellcheck disable=SC2086 # several words on purpose
python3 -m pip install --quiet --no-cache-dir --no-compile --only-binary :all: --root-user-action ignore \
    --disable-pip-version-check ${sources} --target "$2" --requirement "$1"
python3 /build/tools/prune_packages.py "$2"
python3 -m compileall -q -j 0 --invalidation-mode unchecked-hash "$2"
chmod -R a+rX "$2"
