#!/usr/bin/env bash
# Prints the pip option that makes PyTorch's CPU build the one chosen, where that index answers:
# PyPI's own build for Linux brings 3 GB of CUDA libraries. TORCH=cuda takes that one, and so
# prints nothing.
set -euo pipefail

INDEX=https://download.pytorch.org/whl/cpu
case "${TORCH:-cpu}" in
  cuda) exit ;;
  cpu) ;;
  *) echo "TORCH=$TORCH is not one of cpu, cuda" >&2; exit 2 ;;
esac
probe="import urllib.request; urllib.request.urlopen('$INDEX/torch/', timeout=3)"
if timeout 3 "${PYTHON:-python3}" -c "$probe" >/dev/null 2>&1; then
  echo "--extra-index-url=$INDEX"
else
  echo "PyTorch's CPU index does not answer: taking torch from pip's own indexes" >&2
fi
