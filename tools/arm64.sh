#!/bin/sh
# Compile the C library and its tests for arm64, and run the tests in an emulator.
#
#   arm64.sh [TEST...]             test_gis, say; without any, all of tests/c
#
# For Debian and Ubuntu on another processor: needs gcc-aarch64-linux-gnu, libc6-dev-arm64-cross and qemu-user. FFTW and
# OpenBLAS for arm64 are fetched from the sources that apt knows and unpacked in build/arm64: nothing is installed, no
# root needed. What an emulator cannot show is speed.
set -eu
cd "$(dirname "$0")/.."
triplet=aarch64-linux-gnu
place=$PWD/build/arm64
root=$place/root     # the foreign libraries
sources=$place/src   # a copy, so that build/ keeps this machine's objects
blas=usr/lib/$triplet/openblas-pthread

for tool in $triplet-gcc qemu-aarch64; do
    command -v $tool >/dev/null && continue
    echo "$tool is missing: apt-get install gcc-$triplet libc6-dev-arm64-cross qemu-user" >&2
    exit 1
done

if [ ! -e "$root/done" ]; then
    mkdir -p "$place/apt/lists/partial" "$place/apt/archives/partial" "$root"
    : >"$place/apt/status" # nothing is there, so that all that is needed is fetched
    cat >"$place/apt/conf" <<END
APT::Architecture "arm64";
APT::Architectures { "arm64"; };
APT::Sandbox::User "";
Dir::State "$place/apt";
Dir::State::status "$place/apt/status";
Dir::Cache "$place/apt";
END
    export APT_CONFIG="$place/apt/conf"
    apt-get -q update >"$place/apt/log" 2>&1 || true # sources without arm64 do not matter
    apt-get -q -y --download-only --no-install-recommends install libfftw3-dev libopenblas-pthread-dev \
        >>"$place/apt/log" 2>&1 || { cat "$place/apt/log" >&2; exit 1; }
    for package in "$place"/apt/archives/*.deb; do dpkg -x "$package" "$root"; done
    touch "$root/done"
fi

mkdir -p "$sources/tests"
cp -a Makefile pyproject.toml csrc tools "$sources/"
cp -a tests/c "$sources/tests/"
include=usr/include/$triplet/openblas-pthread
export TEST_RUNNER="qemu-aarch64 -L $root"
# Debian 12's cross compiler (gcc 12.2) fails in its vectorizer on loops of some tests; the library it compiles in full.
# shellcheck disable=SC2016
scalar='$(if $(filter build/tests/%,$@),-fno-tree-vectorize)'
make -C "$sources" test-c CC=$triplet-gcc AR=$triplet-ar ${1:+C_TESTS="$*"} \
    PKG_CFLAGS="-isystem $root/usr/include -isystem $root/$include $scalar" \
    PKG_LIBS="-L$root/usr/lib/$triplet -L$root/$blas -lfftw3 -lfftw3f -lopenblas -lm \
              -Wl,-rpath-link,$root/usr/lib/$triplet -Wl,-rpath,/$blas"
