#!/usr/bin/env bash
# Resolves pyproject's ranges to exact versions: requirements/resolve.sh VENV_BIN PY_TAG
# No address is written. A local version label (torch's "+cpu") is dropped, so that the same line installs
# the CPU build where one is offered and the default build elsewhere.
set -euo pipefail
bin=$1
tag=$2
extras=(--extra dev --extra onnx --extra openvino)
# Python 3.10 is the device side alone (JetPack 6).
[ "$tag" = py310 ] || extras+=(--extra train --extra tensorrt-rtx --extra nvrtc)
here=$(dirname "$0")
"$bin/pip-compile" --quiet --strip-extras --allow-unsafe --all-build-deps --no-header --no-emit-options \
    --annotation-style line --resolver backtracking --constraint "$here/constraints.txt" "${extras[@]}" \
    --output-file "$here/$tag.txt" pyproject.toml
sed -i -E 's/^(torch==[0-9.]+)\+[a-z0-9]+/\1/' "$here/$tag.txt"
# What an extra of one platform needs is for that platform too; pip-compile marks the first line alone.
sed -i -E 's/^(tensorrt-rtx-cu13[a-z-]*==[0-9.]+)  #/\1 ; platform_machine == "x86_64"  #/' "$here/$tag.txt"
