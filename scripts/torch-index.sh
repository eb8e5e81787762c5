#!/usr/bin/env bash
# Prints the pip option that selects PyTorch's CPU build, where PyTorch's index answers. PyPI's build
# for Linux brings 3 GB of CUDA libraries; TORCH=cuda selects that one: nothing is printed.
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
  echo "PyTorch's CPU index does not answer: taking torch from pip's default index" >&2
fi
