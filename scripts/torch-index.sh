#!/usr/bin/env bash
# Prints the option of pip and uv that selects PyTorch's CPU build, where PyTorch's index answers.
# PyPI's build for Linux brings 3 GB of CUDA libraries; with TORCH=cuda, or on a machine with an NVIDIA
# GPU, that one is wanted, and nothing is printed.
set -euo pipefail

INDEX=https://download.pytorch.org/whl/cpu
build=$("$(dirname "$0")/torch-build.sh")
if [ "$build" = cuda ]; then exit; fi
probe="import urllib.request; urllib.request.urlopen('$INDEX/torch/', timeout=3)"
if timeout 3 "${PYTHON:-python3}" -c "$probe" >/dev/null 2>&1; then
  echo "--extra-index-url=$INDEX"
else
  echo "PyTorch's CPU index does not answer: taking torch from pip's default index" >&2
fi
