#!/bin/sh
# Run test programs, as many at a time as there are processors, and sum up; a program passes when it exits 0.
# TEST_TIMEOUT: seconds for each; TEST_RUNNER: a command that runs them, an emulator's say.
#
#   run-c-tests.sh LABEL PROGRAM...
if [ "$1" = --one ]; then # FOLDER PROGRAM: of those at a time
    log=$2/$(basename "$3")
    start=$(date +%s)
    # shellcheck disable=SC2086
    timeout "${TEST_TIMEOUT:-600}" $TEST_RUNNER "$3" >"$log" 2>&1
    status=$?
    took=$(($(date +%s) - start))
    if [ $status = 0 ]; then
        echo "ok    $3 (${took} s)"
        touch "$log.passed"
    else
        echo "FAIL  $3 (exit status $status, ${took} s)" >>"$log"
        cat "$log"
    fi
    exit 0
fi
label=$1
shift
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
printf '%s\n' "$@" | xargs -n 1 -P "$(nproc 2>/dev/null || echo 2)" "$0" --one "$folder"
passed=$(find "$folder" -name '*.passed' | wc -l)
failed=$(($# - passed)) # whatever became of them
echo "$label: $passed passed, $failed failed"
[ $failed = 0 ]
