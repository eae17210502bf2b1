#!/bin/sh
# Installs a requirements file into the image's environment, locked, and leaves out what no task needs.
# Runs inside the build only; /locked and /wheels are mounted there and stay behind. Without bytecode, which would be a tenth
# of the image, a task's first imports take 5 s of CPU longer.
set -eu
pip install --no-cache-dir --no-compile --find-links /wheels -c /locked/constraints.txt -r "$1"

site=$(python3 -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
cd "$site"
# The packages' own tests, and the headers and test programs for compiling against torch.
find . -type d -name tests -prune -exec rm -r {} +
rm -rf torch/test torch/include torch/share/cmake onnx/backend/test
find . -path './torch/bin/*' ! -name torch_shm_manager -delete
find . -name '*.a' -delete
find /opt/venv -name __pycache__ -prune -exec rm -r {} +
