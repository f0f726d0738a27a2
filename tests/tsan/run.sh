#!/usr/bin/env bash
# ThreadSanitizer over the runtime: builds gopoll with it and runs the stress and the hammers.
# usage: tests/tsan/run.sh PYTHON [pytest arguments]
# PYTHON is a free-threaded 3.13 configured --with-thread-sanitizer, in which pip works and the
# test dependencies are installed (`pip install '.[test]'`). Reports go to build/tsan/report.*;
# it ends with how many there are, and fails if there is one. BUILDER is an ordinary free-threaded
# 3.13 that has the build's dependencies: Cython under ThreadSanitizer takes half an hour.
set -euo pipefail
cd "$(dirname "$(readlink -f "$0")")/../.."
python=${1:?a Python built with --with-thread-sanitizer}
shift
out=$PWD/build/tsan
rm -rf "$out"
mkdir -p "$out"
GOPOLL_SANITIZE=thread "${BUILDER:-$python}" -m pip install -q --no-deps --no-build-isolation --target "$out/site" .
for module in "$out"/site/gopoll/runtime/*.so; do
    [ "$(nm -D "$module" | grep -c tsan)" -gt 0 ] || { echo "$module is not instrumented" >&2; exit 1; }
done
[ $# -gt 0 ] || set -- --stress 30 tests/runtime/test_stress.py tests/test_hammer.py \
    tests/runtime/test_procs.py tests/runtime/test_chan_threads.py tests/runtime/test_handoff.py
export PYTHONPATH=$out/site
# A thread that a test leaves behind on purpose is no race.
export TSAN_OPTIONS="log_path=$out/report history_size=6 report_thread_leaks=0 exitcode=0 suppressions=$PWD/tests/tsan/suppressions.txt"
status=0
"$python" -m pytest -o faulthandler_timeout=0 -o timeout=900 "$@" || status=$?
count=$(cat "$out"/report.* 2>/dev/null | grep -c '^WARNING: ThreadSanitizer' || true)
echo "ThreadSanitizer: $count reports"
[ "$count" = 0 ] && exit "$status"
exit 1
