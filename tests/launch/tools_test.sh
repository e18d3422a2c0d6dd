#!/usr/bin/env bash
# The shell tools against a stand-in for the program: exit codes, restarts, dry runs and error lines. Needs mpirun, no build.
set -uo pipefail
tools=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../launch" && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
failures=0

# A rank of it: says its arguments (rank 0), then does what `do=` asks of rank 1, or of every rank after `all=`.
cat >fake <<'FAKE'
#!/usr/bin/env bash
rank=${OMPI_COMM_WORLD_RANK:-none}
if [[ $rank == 0 ]]; then
  echo "arguments: $*"
  echo "$*" >>starts.txt
fi
for argument in "$@"; do
  case $argument in
    do=exit*) if [[ $rank == 1 ]]; then echo "error: train.steps is 'x'" >&2; exit "${argument#do=exit}"; fi; sleep 30 ;;
    do=kill*) if [[ $rank == 1 ]]; then kill "-${argument#do=kill}" $$; fi; sleep 30 ;;
    do=die_once*)
      if [[ $rank == 1 && ! -e died ]]; then touch died; mkdir -p "$MAKE_CHECKPOINT"; kill -9 $$; fi
      if [[ $rank != 1 && ! -e died ]]; then sleep 30; fi ;;
    do=sleep) echo $$ >>pids.txt; exec sleep 30 ;;
    do=bar) printf 'step 1\rstep 2\r' >&2; printf '[####] 2/2' >&2 ;;
  esac
done
FAKE
chmod +x fake
printf '#!/bin/sh\necho "# effective config"\n' >explains
chmod +x explains
export TIGHTWIRE=$scratch/fake MAKE_CHECKPOINT=$scratch/none
unset OMP_NUM_THREADS

# check NAME WANTED_CODE WANTED_TEXT COMMAND...: the code, and the text (a regular expression) somewhere in the output.
check() {
  local name=$1 code=$2 text=$3 rc=0
  shift 3
  "$@" >out.txt 2>&1 </dev/null || rc=$?
  if ((rc != code)) || ! grep -qE -- "$text" out.txt; then
    echo "FAILED $name: exit code $rc (wanted $code), wanted /$text/ in:"
    sed 's/^/    /' out.txt
    failures=$((failures + 1))
  fi
}
# check_lines NAME COUNT: the last command printed exactly so many lines.
check_lines() {
  if (($(wc -l <out.txt) != $2)); then
    echo "FAILED $1: wanted $2 lines, got:"
    sed 's/^/    /' out.txt
    failures=$((failures + 1))
  fi
}

run=$tools/run
check RunPassesArguments 0 'arguments: train a.toml x=1$' "$run" -n 2 -q -- train a.toml x=1
check_lines RunQuietPrintsOnlyTheProgram 1
for code in 2 3 5 70; do
  check "RunReturnsCode$code" "$code" "error: train.steps is 'x'" "$run" -n 2 -q -- train "do=exit$code"
  check_lines "RunPrintsOneErrorLineOfCode$code" 2
done
check RunNamesRankAndSignal 4 'run: error: rank 1( on .*)? was killed by signal 9 \(SIGKILL\)' "$run" -n 2 -q -- train do=kill9
check_lines RunPrintsOneLineForAKilledRank 2
check RunStopsAtTimeout 4 'run: error: stopped after 1 s \(--timeout\)' "$run" -n 2 -q --timeout 1 -- train do=sleep
check RunKeepsProgressBars 0 $'step 1\rstep 2\r\\[####\\] 2/2' "$run" -n 1 -q -- train do=bar

printf 'name = "tiny" # comment\n[model]\nname = "gpt"\n[run]\n' >c.toml
rm -f starts.txt
check RunRestartsAKilledRank 0 'restart 1 of 2 from step 0' "$run" -n 2 --restarts 2 -- train c.toml do=die_once
if [[ $(sort -u starts.txt | wc -l) != 1 || $(wc -l <starts.txt) != 2 ]] || ! grep -qE ' run\.dir=runs/tiny-[0-9]{8}-[0-9]{6}$' starts.txt; then
  echo "FAILED RunFixesTheRunFolder: $(cat starts.txt)"
  failures=$((failures + 1))
fi
rm -f died starts.txt
MAKE_CHECKPOINT=$scratch/there/checkpoints/step-00000010
check RunRestartsFromTheCheckpoint 0 'restart 1 of 1 from the newest checkpoint in there' \
  "$run" -n 2 --restarts 1 -- train c.toml do=die_once run.dir=there checkpoint.resume=old/checkpoints/step-00000001
if [[ $(tail -1 starts.txt) != "train c.toml do=die_once run.dir=there checkpoint.resume=auto" ]]; then
  echo "FAILED RunResumesItsOwnCheckpoint: $(cat starts.txt)"
  failures=$((failures + 1))
fi
rm -f starts.txt
check RunGivesUpAfterRestarts 4 'killed by signal 9' "$run" -n 2 --restarts 1 -- train c.toml do=kill9
[[ $(wc -l <starts.txt) == 2 ]] || { echo "FAILED RunGivesUpAfterRestarts: $(cat starts.txt)"; failures=$((failures + 1)); }
rm -f starts.txt
check RunDoesNotRestartAConfigError 2 'train.steps' "$run" -n 2 --restarts 3 -- train c.toml do=exit2
[[ $(wc -l <starts.txt) == 1 ]] || { echo "FAILED RunDoesNotRestartAConfigError: $(cat starts.txt)"; failures=$((failures + 1)); }

check RunDryRunPrintsTheCommand 0 '^OMP_NUM_THREADS=[0-9]+ mpirun .*-n 64 .*--oversubscribe --bind-to none .*/fake train c.toml' \
  "$run" -n 64 --dry-run -- train c.toml
check RunKeepsYourThreadCount 0 '^OMP_NUM_THREADS=3 ' env OMP_NUM_THREADS=3 "$run" -n 1 --dry-run -- train c.toml
check RunPassesHosts 0 '--host a:2\\?,b:2 ' "$run" -n 3 --hosts a:2,b:2 --dry-run -- train c.toml
check RunRefusesTooFewSlots 2 'room for 3' "$run" -n 4 --hosts a:2,b --dry-run -- train c.toml
check RunRefusesNoRanks 2 "-n is '0'; a whole number >= 1" "$run" -n 0 -- train c.toml
check RunNeedsRanks 2 '-n RANKS is missing' "$run" -- train c.toml
check RunNeedsACommand 2 'nothing to run' "$run" -n 2
check RunRefusesAnUnknownOption 2 "'--np' is not an option" "$run" --np 2 -- train
check RunRestartsOnlyTrain 2 '--restarts is for train' "$run" -n 2 --restarts 1 -- eval c.toml
check RunNamesAMissingProgram 3 'no program at /nowhere/tightwire' env TIGHTWIRE=/nowhere/tightwire "$run" -n 2 -- train
check RunHelps 0 'launch/run -n 2 -- train' "$run" --help

# An interrupt ends the ranks too.
rm -f pids.txt
"$run" -n 2 -q -- train do=sleep >out.txt 2>&1 &
runner=$!
for _ in {1..200}; do
  [[ -e pids.txt && $(wc -l <pids.txt) == 2 ]] && break
  sleep 0.1
done
kill -TERM "$runner"
rc=0
wait "$runner" || rc=$?
left=""
while read -r rank_pid; do
  # Some systems' process 1 is slow to bury the dead: a zombie (Z) has ended.
  if [[ $(awk '/^State:/ { print $2 }' "/proc/$rank_pid/status" 2>/dev/null) == [RSDT] ]]; then left+=" $rank_pid"; fi
done <pids.txt
if ((rc != 143)) || [[ -n $left ]]; then
  echo "FAILED RunEndsItsRanksWhenStopped: exit code $rc (wanted 143), ranks left:$left"
  failures=$((failures + 1))
fi

cluster=$tools/cluster
check ClusterHelps 0 'launch/cluster --hosts 4 --rate 100mbit' "$cluster" --help
check ClusterNeedsHosts 2 'cluster: error: --hosts N is missing' "$cluster" -- train c.toml
check ClusterNeedsACommand 2 'nothing to run' "$cluster" --hosts 2
check ClusterRefusesNoHosts 2 "--hosts is '0'; a whole number from 1 to" "$cluster" --hosts 0 -- train c.toml
check ClusterNamesTheNearestOption 2 "'--host' is not an option .*did you mean --hosts" "$cluster" --host 2 -- train c.toml
check ClusterRefusesARateWithoutUnit 2 "rate '100'; numbers like 500kbit" "$cluster" --hosts 2 --rate 100 -- train c.toml
check ClusterRefusesBytesASecond 2 "bits a second, with the unit" "$cluster" --hosts 2 --rate 10MB -- train c.toml
check ClusterRefusesTooManyRates 2 '--rate has 3 rates for 2 hosts' "$cluster" --hosts 2 --rate 1gbit,1gbit,1gbit -- train c.toml
check ClusterRefusesAnUnknownDelay 2 "--delay '5'; numbers like 50us" "$cluster" --hosts 2 --delay 5 -- train c.toml
check ClusterRefusesATopology 2 "--topology is '2by2'; MACHINESxHOSTS" "$cluster" --topology 2by2 -- train c.toml
check ClusterRefusesInnerOfAFlatOne 2 '--inner is of the links inside' "$cluster" --hosts 2 --inner 1gbit -- train c.toml
check ClusterRefusesTwoVerbs 2 '--up and --down do not go together' "$cluster" --up --down --name a
check ClusterDryRunPrintsItAll 0 '^tc -n tw-dry-h1 qdisc replace dev eth0 root tbf rate 100000000bit burst 32768 latency 200ms$' \
  "$cluster" --hosts 2 --rate 100mbit --name dry --dry-run -- tightwire train c.toml
grep -q ' mpirun .*--host h0:1\\,h1:1 .*/fake train c.toml$' out.txt || { echo "FAILED ClusterDryRunPrintsMpirun"; failures=$((failures + 1)); }
# The interpreter itself: python3 may be a script that needs more of PATH.
python=$(python3 -c 'import sys; print(sys.executable)')
check ClusterNamesAMissingTool 3 'cluster: error: no ip; as root run: apt-get install -y iproute2' env PATH="$scratch/nothing" \
  "$python" "$cluster" --hosts 2 -- train c.toml
if (($(id -u))); then
  check ClusterNeedsRoot 2 'cluster: error: network namespaces need root' "$cluster" --hosts 2 -- train c.toml
elif setpriv --reuid=65534 --clear-groups test -r "$cluster" 2>/dev/null && command -v tc >/dev/null; then
  check ClusterNeedsRoot 2 'cluster: error: network namespaces need root' setpriv --reuid=65534 --clear-groups \
    "$cluster" --hosts 2 -- train c.toml
  check_lines ClusterNeedsRootInOneLine 1
else
  echo "SKIPPED: launch/cluster without root (another user cannot read it here)"
fi

compare=$tools/compare
check CompareHelps 0 'launch/compare my.toml --peer none@4' "$compare" --help
check CompareNeedsAConfig 2 'compare: error: one CONFIG is needed' "$compare" --hosts 2
check CompareRefusesNoCountedStep 2 '--steps is 3; at least 4' "$compare" c.toml --steps 3
check CompareRefusesAnUnknownOption 2 'unrecognized arguments: --host; see' "$compare" c.toml --host
check CompareRefusesASettingOfNoKeys 2 "'topk' is no key=value" env TIGHTWIRE="$scratch/explains" "$compare" c.toml --ours "a: topk"
check CompareRefusesALabelTwice 2 "two contenders are called 'a'" env TIGHTWIRE="$scratch/explains" \
  "$compare" c.toml --ours "a: x=1" --ours "a: x=2"
check CompareNamesAPythonWithoutTorch 3 'cannot import torch; name one that can: --python' env TIGHTWIRE="$scratch/explains" \
  "$compare" c.toml --peer none --python false

# shellcheck disable=SC2016  # the job expands it
check SlurmPrintsTheScript 0 'srun --mpi=pmix .*/fake train c.toml run.dir=runs/tightwire-"\$SLURM_JOB_ID"' \
  "$tools/slurm" --nodes 2 --ntasks-per-node 4 -- train c.toml
check SlurmScriptIsValid 0 '^$' bash -c "'$tools/slurm' --nodes 2 --ntasks-per-node 4 --requeue -- train 'a b' | bash -n; echo"
check SlurmNeedsNodes 2 '--nodes is missing' "$tools/slurm" --ntasks-per-node 4 -- train c.toml
check SlurmHelps 0 'sbatch' "$tools/slurm" --help

if python3 -c 'import matplotlib' 2>/dev/null || /usr/bin/python3 -c 'import matplotlib' 2>/dev/null; then
  mkdir -p a b
  for i in {1..60}; do
    echo "{\"step\":$i,\"loss\":$((600 - i)).5,\"wire_bytes\":1000,\"step_ms\":10.0}" >>a/metrics.jsonl
    echo "{\"step\":$i,\"loss\":$((700 - i)).5,\"wire_bytes\":10,\"step_ms\":12.0}" >>b/metrics.jsonl
  done
  echo '{"step":61,"lo' >>b/metrics.jsonl
  check PlotDrawsRuns 0 '^p.png$' "$tools/plot" a b -o p.png
  [[ $(head -c 4 p.png 2>/dev/null | tail -c 3) == PNG ]] || { echo "FAILED PlotDrawsRuns: no PNG"; failures=$((failures + 1)); }
  echo '{"memory":{"parameters":8,"gradients":8,"optimizer":16,"feedback":0,"activations":30,"layers":[{"name":"block 0","bytes":20},{"name":"head and loss","bytes":5}],"peak":62}}' >explained.json
  check PlotDrawsMemory 0 '^m.png$' "$tools/plot" --memory explained.json -o m.png
  echo '{"memory":{"parameters":8}}' >unknown.json
  check PlotNamesAFileWithoutLayers 3 'unknown.json has no prediction by layer' "$tools/plot" --memory unknown.json
  check PlotPassesOverABrokenLine 0 'b/metrics.jsonl: unreadable lines passed over: 1' "$tools/plot" b --x bytes -o q.png
  mkdir -p sparse ended
  for i in 10 20; do echo "{\"step\":$i,\"loss\":1.0,\"wire_bytes\":7,\"step_ms\":100.0}" | tee -a sparse/metrics.jsonl >>ended/metrics.jsonl; done
  echo '{"wire_bytes_per_step":5.0}' >ended/summary.json
  columns="import importlib.machinery as m, sys; sys.dont_write_bytecode = True
Run = m.SourceFileLoader('plot', '$tools/plot').load_module().Run
print([(r.time, r.bytes) for r in (Run('sparse'), Run('ended'))])"
  check PlotCountsStepsWithoutARecord 0 '^\[\(\[1.0, 2.0\], \[70.0, 140.0\]\), \(\[1.0, 2.0\], \[50.0, 100.0\]\)\]$' \
    python3 -W ignore -c "$columns"
  mkdir -p one/run two/run && cp a/metrics.jsonl one/run && cp b/metrics.jsonl two/run
  check PlotDrawsRunsOfOneName 0 '^r.png$' "$tools/plot" one/run two/run -o r.png
  check PlotNamesAMissingFile 3 'plot: error: nowhere/metrics.jsonl: No such file' "$tools/plot" nowhere
  mkdir -p empty && : >empty/metrics.jsonl
  check PlotNamesAnEmptyFile 3 'plot: error: empty/metrics.jsonl has no steps' "$tools/plot" empty
else
  echo "SKIPPED: the plot itself (no matplotlib)"
  check PlotNamesThePackage 3 'apt-get install -y python3-matplotlib' "$tools/plot" nowhere
fi
check PlotNeedsARun 2 'no run folder given' "$tools/plot"
check PlotRefusesAnUnknownAxis 2 "invalid choice: 'epoch'" "$tools/plot" a --x epoch
check PlotHelps 0 'by bytes sent' "$tools/plot" --help

mkdir -p d t
echo '{"name":"dense","final_loss":2.0,"wire_bytes_per_step":3200000,"compression_ratio":1.0,"step_ms_median":151.4,"wall_s":60.2}' >d/summary.json
echo '{"name":"topk","final_loss":2.2,"val_loss":2.25,"wire_bytes_per_step":64000,"compression_ratio":50.0,"step_ms_median":140,"wall_s":58}' >t/summary.json
check TableComparesWithTheFirst 0 '^topk +2.200 +\+10.0 % +2.250 +64.00 kB +50.0 x +140 +58$' python3 "$tools/summary_table.py" d t
mkdir -p again broken && cp t/summary.json again && echo '[]' >broken/summary.json
check TableNamesFoldersWhereNamesRepeat 0 '^again +2.200' python3 "$tools/summary_table.py" t again
check TableNamesABrokenSummary 3 'broken/summary.json: is no summary' python3 "$tools/summary_table.py" t broken
check TableNamesAMissingSummary 3 'nowhere/summary.json is missing' python3 "$tools/summary_table.py" nowhere

check SetupRefusesAnUnknownOption 2 "'--all' is not an option" "$tools/setup" --all
check SetupHelps 0 'TORCH_DIR' "$tools/setup" --help
check SetupNamesABadTorchDir 3 'TORCH_DIR: /nowhere has no lib/libtorch_cpu.so' env TORCH_DIR=/nowhere "$tools/setup" --check
mkdir -p old/lib old/include/ATen old/include/torch/csrc/api/include/torch
touch old/lib/libtorch_cpu.so old/lib/libc10.so old/include/ATen/ATen.h
printf '#define TORCH_VERSION_%s\n' 'MAJOR 2' 'MINOR 4' 'PATCH 1' >old/include/torch/csrc/api/include/torch/version.h
check SetupRefusesAnOldTorch 3 'old is LibTorch 2.4.1; 2.6 or newer is needed' env TORCH_DIR="$scratch/old" "$tools/setup" --check
check TestHelps 0 '--sanitize' "$tools/test" --help
check TestRefusesSlowSanitizers 2 'do not go together' "$tools/test" --slow --sanitize
check QuickstartHelps 0 '--again' "$tools/quickstart" --help
check QuickstartRefusesAnUnknownOption 2 "'--fast' is not an option" "$tools/quickstart" --fast

((failures == 0)) || { echo "$failures checks failed"; exit 1; }
echo "all checks passed"
