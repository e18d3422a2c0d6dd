#!/usr/bin/env bash
# The compressor in README.md compiles as it stands there, and the files and commands that the README names exist.
# readme_test.sh COMPILER PROGRAM
set -uo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
failures=0

sed -n '/^```cpp$/,/^```$/{/^```/d;p}' "$root/README.md" >"$scratch/mean.cc"
if ! grep -q TW_REGISTER "$scratch/mean.cc"; then
  echo "FAILED: no compressor in README.md"
  failures=1
elif ! "$1" -std=c++20 -Wall -Wextra -Wno-unused-parameter -Werror -fsyntax-only -I "$root" "$scratch/mean.cc"; then
  echo "FAILED: the compressor in README.md does not compile"
  failures=1
fi
# Links to files, from the root and from docs/.
cd "$root" || exit 1
for page in README.md docs/*.md examples/*/README.md; do
  for link in $(grep -oE '\]\([^)#]+' "$root/$page" | sed 's/](//' | grep -v '^http'); do
    [[ -e $(dirname "$root/$page")/$link ]] || { echo "FAILED: $page links to $link, which is not there"; failures=$((failures + 1)); }
  done
done
# Every example in README and guide that only looks must run.
for kind in compressor feedback model optimizer; do
  "$2" list "$kind" >/dev/null || { echo "FAILED: tightwire list $kind"; failures=$((failures + 1)); }
done
((failures == 0)) || exit 1
echo "all checks passed"
