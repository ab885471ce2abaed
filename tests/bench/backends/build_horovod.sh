#!/bin/sh
# Real Horovod 0.28.1 with its gloo and MPI controllers, in a virtual environment of its own, for the benchmark alone:
#
#     sudo apt-get install cmake g++ openmpi-bin libopenmpi-dev
#     sh tests/bench/backends/build_horovod.sh ~/horovod
#     COORDSIM_HOROVOD_PYTHON=~/horovod/bin/python python -m tests.bench.backends
#
# PYTHON: which one the environment is made with (default python3; Horovod 0.28.1 builds with 3.11).
set -eu

venv=${1:?usage: build_horovod.sh FOLDER}
python=${PYTHON:-python3}
for tool in cmake g++ mpirun mpicxx; do
    command -v "$tool" >/dev/null || { echo "no $tool: apt-get install cmake g++ openmpi-bin libopenmpi-dev" >&2; exit 1; }
done

"$python" -m venv "$venv"
venv=$(cd "$venv" && pwd)
"$venv/bin/pip" install torch==2.13.0 'setuptools<81' wheel cloudpickle psutil pyyaml packaging numpy cffi

build=$(mktemp -d)
trap 'rm -rf "$build"' EXIT
cd "$build"
"$venv/bin/pip" download --no-deps --no-binary :all: --no-build-isolation horovod==0.28.1
tar -xzf horovod-0.28.1.tar.gz
cd horovod-0.28.1
# Today's torch has headers in C++20, and what depends on them no longer compiles as C++14.
sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 20/' horovod/torch/CMakeLists.txt
sed -i 's/CMAKE_CXX_STANDARD 14/CMAKE_CXX_STANDARD 17/' CMakeLists.txt
HOROVOD_WITH_GLOO=1 HOROVOD_WITH_MPI=1 HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
    "$venv/bin/pip" install --no-build-isolation .
cd /
"$venv/bin/horovodrun" --check-build
