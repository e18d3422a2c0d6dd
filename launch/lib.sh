# shellcheck shell=bash
# What the shell tools share: where the repository is, progress lines, one-line errors, long commands, finding LibTorch.
# Sourced, never run. Exit codes are the program's: 2 usage, 3 something missing on this machine, 4 network or a peer.

# shellcheck disable=SC2034  # read by the tools that source this file
tw_root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
tw_tool=$(basename "$0")
tw_start=$(date +%s)
tw_torch_wanted=2.11.0
tw_torch_oldest=2.6

tw_elapsed() {
  local s=$(($(date +%s) - tw_start))
  printf '%d:%02d' $((s / 60)) $((s % 60))
}

# A progress line with the time since the tool started. On stderr: stdout belongs to the program.
tw_say() { printf '%s [%5s] %s\n' "$tw_tool" "$(tw_elapsed)" "$*" >&2; }

# tw_die CODE MESSAGE: one line, then out.
tw_die() {
  local code=$1
  shift
  printf '%s: error: %s\n' "$tw_tool" "$*" >&2
  exit "$code"
}

tw_have() { command -v "$1" >/dev/null 2>&1; }

# tw_help FILE: the comment block at the top of a tool is its --help.
tw_help() { awk 'NR > 1 { if ($0 !~ /^#/) exit; sub(/^# ?/, ""); print }' "$1"; }

# tw_logged WHAT LOG COMMAND...: runs COMMAND with its output in LOG, and shows the log's last line every 15 s.
tw_logged() {
  local what=$1 log=$2 rc=0 pid ticks=0
  shift 2
  tw_say "$what"
  # A process group of its own, so that an interrupt also ends what the command started.
  set -m
  "$@" >>"$log" 2>&1 </dev/null &
  pid=$!
  set +m
  # shellcheck disable=SC2064  # the pid of now is meant
  trap "kill -- -$pid 2>/dev/null; wait $pid 2>/dev/null; exit 130" INT TERM
  while kill -0 "$pid" 2>/dev/null; do
    sleep 0.2
    ticks=$((ticks + 1))
    if ((ticks % 75 == 0)); then tw_say "  ... $(tail -1 "$log" | cut -c1-100)"; fi
  done
  wait "$pid" || rc=$?
  trap - INT TERM
  return "$rc"
}

# The last line of a log that looks like an error, for a one-line message.
tw_last_error() {
  local line
  if grep -qE 'NewConnectionError|NameResolutionError|ConnectTimeoutError|Temporary failure (in name )?resol' "$1"; then
    echo "the server cannot be reached"
    return
  fi
  line=$(grep -E '^(E:|ERROR|error:|Error)' "$1" | tail -1)
  [[ -n $line ]] || line=$(tail -1 "$1")
  printf '%s' "${line:0:240}"
}

# tw_at_least 3.25.1 3.25: is the first version the second or newer?
tw_at_least() { [[ $(printf '%s\n%s\n' "$2" "$1" | sort -V | head -1) == "$2" ]]; }

# As many compilers as there are cores, but no more than 2 GiB of memory allows (torch/torch.h wants 1.5 GiB each).
tw_jobs() {
  local cores gib
  cores=$(nproc)
  gib=$(awk '/^MemAvailable:/ { print int($2 / 2097152) }' /proc/meminfo 2>/dev/null || echo "$cores")
  if ((gib < 1)); then gib=1; fi
  echo $((cores < gib ? cores : gib))
}

# tw_torch_version DIR: of the LibTorch there, from its header (wheel or zip alike), else its Python or zip stamp.
tw_torch_version() {
  local h v
  for h in include/torch/headeronly/version.h include/torch/csrc/api/include/torch/version.h; do
    v=$(sed -nE 's/^#define TORCH_VERSION_(MAJOR|MINOR|PATCH) +([0-9]+).*/\2/p' "$1/$h" 2>/dev/null | paste -sd.)
    if [[ $v =~ ^[0-9]+\.[0-9]+\.[0-9]+$ ]]; then
      echo "$v"
      return
    fi
  done
  v=$(sed -nE "s/^__version__ *= *'([0-9.]+).*/\1/p" "$1/version.py" 2>/dev/null)
  [[ -n $v ]] || v=$(sed -nE '1s/^([0-9.]+).*/\1/p' "$1/build-version" 2>/dev/null)
  echo "$v"
}

# tw_torch_fault DIR: prints why the LibTorch in DIR cannot be used; prints nothing when it can.
tw_torch_fault() {
  local dir=$1 lib v missing
  for lib in lib/libtorch_cpu.so lib/libc10.so include/ATen/ATen.h; do
    if [[ ! -e $dir/$lib ]]; then
      echo "$dir has no $lib"
      return
    fi
  done
  v=$(tw_torch_version "$dir")
  if [[ -z $v ]]; then
    echo "$dir says no version (include/torch/csrc/api/include/torch/version.h)"
  elif ! tw_at_least "$v" "$tw_torch_oldest"; then
    echo "$dir is LibTorch $v; $tw_torch_oldest or newer is needed"
  elif ! grep -qaF '_ZN3c106detail14torchCheckFailEPKcS2_jRKNSt7__cxx11' "$dir/lib/libc10.so"; then
    echo "$dir was built with the old C++ string ABI (_GLIBCXX_USE_CXX11_ABI=0); a build with the new one is needed"
  else
    missing=$(ldd "$dir/lib/libtorch_cpu.so" 2>&1 | grep 'not found' | head -1 | sed 's/^[ \t]*//')
    [[ -z $missing ]] || echo "$dir/lib/libtorch_cpu.so does not load: $missing"
  fi
}

# The folder of the torch that python3 would import, without importing it.
tw_python_torch() {
  tw_have python3 || return 0
  (cd / && python3 -c 'import importlib.util, os
spec = importlib.util.find_spec("torch")
print(os.path.dirname(spec.origin) if spec and spec.origin else "")') 2>/dev/null || true
}

# tw_find_torch: prints the LibTorch to build with, or nothing. The order is that of launch/cmake/tw_torch.cmake:
# TORCH_DIR, .deps/torch, python3's torch. A TORCH_DIR that is set but useless is an error, not a reason to look on.
tw_find_torch() {
  local dir fault
  if [[ -n ${TORCH_DIR:-} ]]; then
    fault=$(tw_torch_fault "$TORCH_DIR")
    [[ -z $fault ]] || tw_die 3 "TORCH_DIR: $fault"
    echo "$TORCH_DIR"
    return
  fi
  for dir in "$tw_root/.deps/torch" "$(tw_python_torch)"; do
    if [[ -z $dir || ! -e $dir ]]; then continue; fi
    fault=$(tw_torch_fault "$dir")
    if [[ -z $fault ]]; then
      echo "$dir"
      return
    fi
    tw_say "passing over a LibTorch: $fault"
  done
}

# tw_build PRESET [TARGET...]: configures and builds, quietly unless it fails. LibTorch must have been found before.
tw_build() {
  local preset=$1 log
  shift
  log="$tw_root/build/$preset.log"
  mkdir -p "$tw_root/build"
  : >"$log"
  cd "$tw_root" || return 3
  TORCH_DIR=$(tw_find_torch) || exit $?
  export TORCH_DIR
  if ! tw_logged "configuring (cmake --preset $preset)" "$log" cmake --preset "$preset" --log-level=NOTICE; then
    tail -20 "$log" >&2
    tw_die 70 "cmake --preset $preset failed; its output is in ${log#"$tw_root"/}"
  fi
  local jobs
  jobs=$(tw_jobs)
  tw_say "building with $jobs compilers (cmake --build --preset $preset${*:+ --target $*})"
  # Straight to the terminal: ninja shows its own progress there, one line overwritten.
  if ! cmake --build --preset "$preset" -j "$jobs" ${1:+--target "$@"} </dev/null >&2; then
    tw_die 70 "the build failed (cmake --build --preset $preset); the compiler's message is above"
  fi
}
