#!/usr/bin/env bash
# tests/gpu.sh: builds the CUDA module and all tests labelled cuda, and runs them on this machine's GPU, without a network. Then
# measures what must be reached on a GPU (tests/gpu_numbers.py), into build/gpu and $OUT.
#
#   tests/gpu.sh [--libs FILE] [--build-only]   builds (preset cuda), tests, measures, compute-sanitizer where it is
#   tests/gpu.sh --pack FILE.tar.gz             on a machine with launch/setup's packages: what a bare one lacks, to be carried along
#   tests/gpu.sh --help
#
# The machine needs g++, CUDA (nvcc), NCCL, CMake >= 3.25, Ninja, and TORCH_DIR or a python3 that imports torch. The libraries of
# launch/setup come from the system, or from --libs FILE (default: .deps/gpu-libs.tar.gz where it lies), which --pack made on a Debian
# or Ubuntu whose C library is not newer. PyTorch's figures come from python3, or from the interpreter in TIGHTWIRE_PEER_PYTHON.
#
# Examples
#   tests/gpu.sh --pack .deps/gpu-libs.tar.gz        (here, where packages can be had)
#   tests/gpu.sh                                     (there)
#
# Exit codes: 0 all passed; 1 a test failed; 2 usage; 3 something is missing; 70 the build failed; 77 no GPU here.
set -uo pipefail
# shellcheck source=launch/lib.sh
. "$(dirname "${BASH_SOURCE[0]}")/../launch/lib.sh"

# What is packed: these packages' headers, libraries, CMake and pkg-config files, and the libraries that they load.
packages=(
  libabsl-dev libhwy-dev libtomlplusplus-dev libcli11-dev nlohmann-json3-dev libspdlog-dev libfmt-dev libxxhash-dev libzstd-dev
  zlib1g-dev libgtest-dev libgmock-dev libopenmpi-dev libopenmpi3 openmpi-bin openmpi-common libpmix2 pkg-config pkgconf pkgconf-bin
)

pack() {
  local out=$1 stage list package file target
  tw_have dpkg-query || tw_die 3 "--pack reads package lists; it needs Debian or Ubuntu"
  stage=$(mktemp -d) || exit 3
  # shellcheck disable=SC2064  # its name is known now
  trap "rm -rf '$stage'" EXIT
  list="$stage/list"
  for package in "${packages[@]}"; do
    dpkg-query -W "$package" >/dev/null 2>&1 || tw_die 3 "package $package is not installed; launch/setup installs what is needed"
    dpkg-query -L "$package"
    # A -dev package goes with the library of its own version.
    dpkg-query -W -f '${Depends}\n' "$package" | tr ',' '\n' | sed -nE 's/^ *(lib[^ ]+) \(= .*/\1/p' | xargs -r dpkg-query -L
  done | grep -E '^/(usr/(bin|include|lib|share/(CLI11|cmake|nlohmann_json|openmpi|pmix|pkgconfig))|etc/openmpi|lib)/' |
    grep -vE '/fortran/|/java/|\.mod$|/debug/' | sort -u | while read -r file; do
    if [[ -f $file || -L $file ]]; then echo "$file"; fi
  done >"$list"
  # Libraries that those load, but for the C and C++ libraries, which every machine with a compiler has.
  while read -r file; do
    if [[ $file == *.so* || $file == /usr/bin/* ]]; then ldd "$file" 2>/dev/null | awk '$3 ~ /^\// { print $3 }'; fi
  done <"$list" | sort -u | grep -vE '/(libc|libm|libdl|libpthread|librt|libresolv|libutil|libgcc_s|libstdc\+\+|ld-linux[^/]*)\.(so|a)' >"$stage/loaded"
  mkdir -p "$stage/root"
  sort -u "$list" "$stage/loaded" | while read -r file; do
    target=$file
    # One place for all; links to places outside of it (alternatives) become what they point to.
    if [[ $file == /lib/* ]]; then target=/usr$file; fi
    mkdir -p "$stage/root$(dirname "$target")"
    if [[ -L $file && $(readlink "$file") != /* ]]; then
      cp -a "$file" "$stage/root$target"
      [[ -e $stage/root$(readlink -m "$target") ]] || cp -L "$file" "$stage/root$(readlink -m "$target")" 2>/dev/null
    else
      cp -L --preserve=mode,timestamps "$file" "$stage/root$target"
    fi
  done
  find "$stage/root" -name '*.so*' -type f -exec strip --strip-unneeded {} + 2>/dev/null
  tar -C "$stage/root" -czf "$out" . || tw_die 3 "cannot write $out"
  tw_say "packed $(wc -l <"$list") files of ${#packages[@]} packages into $out, $(du -m "$out" | cut -f1) MB"
}

# Lets CMake, the compiler and programs find what was packed.
use_libs() {
  local file=$1 root="$tw_root/build/gpu-libs" arch
  [[ -r $file ]] || tw_die 3 "cannot read $file"
  if [[ ! -e $root/.from || $(cat "$root/.from") != "$(cksum <"$file")" ]]; then
    rm -rf "$root"
    mkdir -p "$root"
    tar -C "$root" -xzf "$file" || tw_die 3 "cannot unpack $file"
    cksum <"$file" >"$root/.from"
  fi
  arch=$(cd "$root/usr/lib" && find . -mindepth 1 -maxdepth 1 -name '*-linux-gnu' | head -1)
  local lib="$root/usr/lib/${arch#./}"
  export CMAKE_PREFIX_PATH="$root/usr${CMAKE_PREFIX_PATH:+:$CMAKE_PREFIX_PATH}"
  export PATH="$root/usr/bin:$PATH"
  export LD_LIBRARY_PATH="$lib:$lib/openmpi/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
  export PKG_CONFIG_SYSROOT_DIR="$root" PKG_CONFIG_LIBDIR="$lib/pkgconfig:$root/usr/share/pkgconfig"
  export OPAL_PREFIX="$root/usr" OPAL_LIBDIR="$lib" PMIX_INSTALL_PREFIX="$root/usr"
  cmake_args+=("-DCMAKE_LIBRARY_ARCHITECTURE=${arch#./}" "-DMPI_CXX_HEADER_DIR=$lib/openmpi/include"
    "-DMPI_CXX_COMPILER=MPI_CXX_COMPILER-NOTFOUND" "-DMPI_CXX_LIB_NAMES=mpi" "-DMPI_mpi_LIBRARY=$lib/libmpi.so.40"
    "-DMPIEXEC_EXECUTABLE=$root/usr/bin/mpirun.openmpi")
  tw_say "libraries from $file"
}

# How many GPUs the driver shows; nothing where there is no driver.
count_gpus() {
  python3 - 2>/dev/null <<'PY'
import ctypes
driver = ctypes.CDLL("libcuda.so.1")
count = ctypes.c_int(0)
if driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0:
    print(count.value)
PY
}

# Programs of the tests labelled cuda that compute-sanitizer sees, one a line: not those that launch the same kernels ten thousand
# times, through codecs, exchanges and the engine.
cuda_programs() {
  ctest --test-dir build/release -L cuda --show-only=json-v1 2>/dev/null | python3 -c '
import json, sys
for command in dict.fromkeys(t["command"][0] for t in json.load(sys.stdin)["tests"] if t.get("command")):
    print(command)' | grep -vE '/(codecs|exchange|engine)_gpu_tests$'
}

libs=""
build_only=0
while (($#)); do
  case $1 in
    --pack | --libs)
      (($# > 1)) || tw_die 2 "$1 needs a FILE"
      if [[ $1 == --pack ]]; then
        pack "$2"
        exit 0
      fi
      libs=$2
      shift
      ;;
    --build-only) build_only=1 ;;
    -h | --help)
      tw_help "$0"
      exit 0
      ;;
    *) tw_die 2 "'$1' is not an option of tests/gpu.sh; known: --libs --build-only --pack --help" ;;
  esac
  shift
done

tw_have python3 || tw_die 3 "no python3"
gpus=$(count_gpus)
if ((!build_only)) && ((${gpus:-0} == 0)); then
  tw_say "no GPU here (driver: ${gpus:-none}); --build-only builds all the same"
  exit 77
fi
for tool in g++ cmake ninja ctest; do tw_have "$tool" || tw_die 3 "no $tool"; done

cd "$tw_root" || exit 3
cmake_args=()
if [[ -z $libs && -e .deps/gpu-libs.tar.gz ]]; then libs=.deps/gpu-libs.tar.gz; fi
if [[ -n $libs ]]; then use_libs "$libs"; fi
mkdir -p build
log=build/gpu.log
: >"$log"
tw_logged "configuring (preset cuda)" "$log" cmake --preset cuda "${cmake_args[@]}" ||
  tw_die 3 "cannot configure: $(grep -m1 -A3 'CMake Error' "$log" | tr '\n' ' ') (all of it: $log)"
grep -E '^-- CUDA ' "$log" | tail -1 | sed 's/^-- /gpu.sh: /' >&2
tw_logged "building" "$log" cmake --build --preset cuda -j "$(nproc)" ||
  tw_die 70 "the build failed: $(grep -m1 -E 'error|FAILED' "$log") (all of it: $log)"
if ((build_only)); then
  tw_say "built; nothing was run"
  exit 0
fi

failed=0
tw_say "$gpus GPU(s); testing: ctest -L cuda"
ctest --preset cuda --no-tests=error </dev/null || failed=1
build/release/tightwire list kernels | head -3
if build/release/tightwire list kernels | grep -q '^  cuda  *not here'; then
  tw_say "the module does not load"
  failed=1
fi

tw_say "numbers: tests/gpu_numbers.py"
python3 -B tests/gpu_numbers.py --python "${TIGHTWIRE_PEER_PYTHON:-python3}" --ranks "$((gpus > 2 ? 2 : gpus))" --out build/gpu --limit 420 </dev/null || failed=1

if tw_have compute-sanitizer; then
  # sanitize TOOL PROGRAM
  sanitize() {
    local rc
    tw_say "compute-sanitizer $1 $(basename "$2")"
    timeout 240 compute-sanitizer --tool "$1" --error-exitcode 9 "$2" --gtest_brief=1 --gtest_filter=-QueueOfLargeTensors.* >"$log.sanitizer" 2>&1
    rc=$?
    grep -E '(ERROR|RACECHECK) SUMMARY' "$log.sanitizer" | tail -1
    if ((rc == 9)); then
      grep -m5 -E '^=+ +(Invalid|Error|Program hit|.*[Rr]ace|Barrier|Divergent)' "$log.sanitizer"
      failed=1
    elif ((rc == 124)); then
      tw_say "compute-sanitizer found nothing in 240 s, and was not through"
    elif ((rc)); then
      tw_say "compute-sanitizer ended with $rc: $(tail -1 "$log.sanitizer")"
      failed=1
    fi
  }
  while read -r program; do sanitize memcheck "$program"; done < <(cuda_programs)
  # Shared memory and barriers: the kernels themselves.
  kernels=$(cuda_programs | grep '/cuda_kernel_tests$')
  for tool in racecheck synccheck; do sanitize "$tool" "$kernels"; done
else
  tw_say "no compute-sanitizer here: not run"
fi

((failed)) && tw_say "something failed"
exit "$failed"
