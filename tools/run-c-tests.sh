#!/bin/sh
# Run test programs one after another and sum up; a program passes when it exits 0.
#
#   run-c-tests.sh LABEL PROGRAM...
label=$1
shift
log=$(mktemp)
trap 'rm -f "$log"' EXIT
passed=0
failed=0
for program in "$@"; do
    start=$(date +%s)
    timeout "${TEST_TIMEOUT:-600}" "$program" >"$log" 2>&1
    status=$?
    took=$(($(date +%s) - start))
    if [ $status = 0 ]; then
        passed=$((passed + 1))
        echo "ok    $program (${took} s)"
    else
        failed=$((failed + 1))
        cat "$log"
        echo "FAIL  $program (exit status $status, ${took} s)"
    fi
done
echo "$label: $passed passed, $failed failed"
[ $failed = 0 ]
