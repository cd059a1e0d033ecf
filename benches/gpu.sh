#!/usr/bin/env bash
# The GPU tests and benches on a machine that has Python, torch and CUDA but no network: in under nine minutes, one report.
#
#   bash benches/gpu.sh wheels WHEELS          with a network and the same version of Python: fetch what is missing there
#   bash benches/gpu.sh run WHEELS REPORT.md   on the machine with the GPU
#
# PYTHON names the Python that has torch (python3). LACKS names the packages to fetch, where they are others than those that
# a machine for deep learning (torch, torchvision, NumPy, SciPy, pandas, PyArrow, OpenCV, pytest) lacks or may have too old
# (timm). Nothing is installed: wheels of packages that this Python has not got in that version are unpacked into a folder,
# which goes at the end.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

PYTHON=${PYTHON:-python3}
LACKS=${LACKS:-"timm jsonargparse docstring-parser typeshed-client shtab tomli-w toml kornia-rs simplejpeg webdataset braceexpand
submitit cloudpickle pytest-timeout hypothesis sortedcontainers lightly lightly-utils aenum hydra-core omegaconf
antlr4-python3-runtime pytorch-lightning lightning-utilities torchmetrics"}
SECONDS_IN_ALL=530
SECONDS_OF_TESTS=240

usage() {
    sed -n '4,5s/^# *//p' "${BASH_SOURCE[0]}" >&2
    exit 2
}

left() { echo $((SECONDS_IN_ALL - SECONDS > 1 ? SECONDS_IN_ALL - SECONDS : 1)); }

fetch() { # WHEELS
    # shellcheck disable=SC2086
    "$PYTHON" -m pip wheel --quiet --disable-pip-version-check --no-deps --constraint constraints.txt --wheel-dir "$1" $LACKS
    echo "gpu.sh: $(find "$1" -name '*.whl' | wc -l) wheels, $(du -sm "$1" | cut -f1) MB, in $1"
}

# A section of the report: a command's output within its time, and how it ended.
section() { # TITLE SECONDS COMMAND...
    local title=$1 limit=$2 began=$SECONDS code=0
    shift 2
    timeout --kill-after=10 "$limit" "$@" >"$work/out" 2>"$work/err" || code=$?
    {
        printf '\n## %s\n\n`%s`: ' "$title" "$*"
        case $code in
            0) echo "done in $((SECONDS - began)) s." ;;
            124 | 137) echo "ended after $((SECONDS - began)) s, out of time." ;;
            *) echo "exit code $code after $((SECONDS - began)) s." ;;
        esac
        printf '\n'
        cat "$work/out"
        if [ "$code" != 0 ]; then
            printf '\n```\n'
            tail -n 30 "$work/err"
            printf '```\n'
        fi
    } >>"$report"
    return "$code"
}

run() { # WHEELS REPORT
    report=$2
    [ ! -e "$report" ] || { echo "gpu.sh: $report exists; name another report" >&2; exit 2; }
    [ -d "$1" ] || { echo "gpu.sh: $1 is no folder of wheels; make one: bash benches/gpu.sh wheels $1" >&2; exit 2; }
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    unpacked=$("$PYTHON" -m benches._wheels "$1" "$work/site") || exit 2
    export PYTHONPATH="$work/site:$PWD" PYTHONDONTWRITEBYTECODE=1 PYTEST_DISABLE_PLUGIN_AUTOLOAD=1
    "$PYTHON" -m benches._wheels --header "$unpacked" >"$report.begun" || { rm "$report.begun"; exit 2; }
    mv "$report.begun" "$report"
    card=$("$PYTHON" -c 'import torch; print(torch.cuda.is_available())')
    failed=()
    mapfile -t files < <(grep -rl --include='test_*.py' 'pytest.mark.gpu' tests | sort)
    limit=$(left)
    section "Tests of GPUs" $((limit < SECONDS_OF_TESTS ? limit : SECONDS_OF_TESTS)) \
        "$PYTHON" -m pytest -q -m gpu -p pytest_timeout -p no:cacheprovider "${files[@]}" || failed+=(tests)
    if [ "$card" != True ]; then
        said=$(grep -Eo '[0-9]+ (passed|skipped|failed)' "$work/out" | paste -sd ' ' || true)
        count=$(tr ',' '\n' <<<"$unpacked" | grep -c . || true)
        line="no CUDA card here: $count packages unpacked; gpu tests: ${said:-none ran}; no bench ran; $report"
        printf '\nNo card: no bench was run.\n' >>"$report"
        echo "gpu.sh: $line" >&2
        exit 2
    fi
    for bench in benches/gpu_*.py; do
        name=$(basename "$bench" .py)
        section "$name" "$(left)" "$PYTHON" -m "benches.$name" || failed+=("$name")
    done
    printf '\nAll of it took %s s.\n' "$SECONDS" >>"$report"
    echo "gpu.sh: $report, $SECONDS s${failed[*]:+; failed: ${failed[*]}}"
    [ ${#failed[@]} = 0 ]
}

case "${1:-} $#" in
    "wheels 2") fetch "$2" ;;
    "run 3") run "$2" "$3" ;;
    *) usage ;;
esac
