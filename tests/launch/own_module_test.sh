#!/usr/bin/env bash
# examples/04_own_module as a user builds it: against an install into a folder of its own, from outside of the tree; then 20
# steps on 2 ranks. own_module_test.sh BUILD_DIR CMAKE MPIRUN [CMAKE_ARGUMENT...]
set -uo pipefail
build=$1
cmake=$2
mpirun=$3
shift 3
example=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../examples/04_own_module" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

fail() {
  echo "FAILED: $1"
  sed 's/^/    /' "$scratch/out.txt"
  exit 1
}
"$cmake" --install "$build" --prefix "$scratch/prefix" >"$scratch/out.txt" 2>&1 || fail "cmake --install"
cp -r "$example" "$scratch/example"
cd "$scratch" || exit 1
"$cmake" -G Ninja -S example -B build "-DCMAKE_PREFIX_PATH=$scratch/prefix" "$@" >out.txt 2>&1 || fail "find_package(tightwire)"
"$cmake" --build build >out.txt 2>&1 || fail "the build of the example"
"$mpirun" --oversubscribe --bind-to none -np 2 build/own_module train example/config.toml train.steps=20 run.dir=run >out.txt 2>&1 ||
  fail "20 steps on 2 ranks"
grep -q 'final_loss 0\.[0-9]' out.txt || fail "no line with final_loss"
grep -q '"world_size": 2' run/summary.json || fail "not a run of 2 ranks"
cat run/summary.json >out.txt
grep -q '"param": "mid.weight"' run/summary.json || fail "the module's parameters are not in the plan"
"$scratch/prefix/bin/tightwire" --version >out.txt 2>&1 || fail "the installed program does not start"
# A typing error in a key of the user's own task is found like any other.
rc=0
build/own_module train example/config.toml data.frequenzy=2 >out.txt 2>&1 || rc=$?
{ ((rc == 2)) && grep -q 'frequency' out.txt; } || fail "data.frequenzy: exit code $rc, wanted 2 and the nearest key"
echo "own_module: installed, built and trained"
