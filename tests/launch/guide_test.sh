#!/usr/bin/env bash
# docs/guide.md against the program's own list of keys and docs/reproductions.md against its list of experiments, and that the check can fail. guide_test.sh PROGRAM
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
export TIGHTWIRE=$1
make_guide=$root/launch/make_guide
failures=0

# check NAME WANTED_CODE WANTED_TEXT COMMAND...
check() {
  local name=$1 code=$2 text=$3 rc=0
  shift 3
  "$@" >"$scratch/out.txt" 2>&1 </dev/null || rc=$?
  if ((rc != code)) || ! grep -qE -- "$text" "$scratch/out.txt"; then
    echo "FAILED $name: exit code $rc (wanted $code), wanted /$text/ in:"
    sed 's/^/    /' "$scratch/out.txt"
    failures=$((failures + 1))
  fi
}

check GuideHasEveryKey 0 '^$' bash -c "'$make_guide' --check && echo"
# A key taken out, another's default changed: both are named.
sed -e '/^| `train.max_skipped`/d' -e 's/| `train.batch_size` | `8`/| `train.batch_size` | `9`/' "$root/docs/guide.md" >"$scratch/guide.md"
check GuideNamesAMissingKey 1 'not in guide.md: \| `train.max_skipped`' "$make_guide" --check --guide "$scratch/guide.md"
check GuideNamesAnOldDefault 1 'no longer so: \| `train.batch_size` \| `9`' "$make_guide" --check --guide "$scratch/guide.md"
check GuideIsMended 0 '^$' bash -c "'$make_guide' --guide '$scratch/guide.md' && cmp '$scratch/guide.md' '$root/docs/guide.md' && echo"
echo "no markers" >"$scratch/plain.md"
check GuideNeedsItsMarkers 3 'plain.md lacks the lines' "$make_guide" --check --guide "$scratch/plain.md"
check GuideNamesAMissingProgram 3 '/nowhere: No such file' "$make_guide" --check --program /nowhere

check ReproductionsNameEveryExperiment 0 '^$' bash -c "'$root/launch/make_reproductions' --check && echo"

# What the guide says about metrics, in the program's own names.
for field in $(grep -oE 'TW_METRIC\([a-z_]+' "$root/core/api/metrics.cc" | sed 's/.*(//'); do
  grep -qE "^\| \`$field\`" "$root/docs/guide.md" || { echo "FAILED GuideExplainsEveryMetric: $field"; failures=$((failures + 1)); }
done
((failures == 0)) || { echo "$failures checks failed"; exit 1; }
echo "all checks passed"
