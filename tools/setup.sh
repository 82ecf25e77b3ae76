#!/bin/sh
# Make .venv and install finevote with its development tools into it; `make setup` calls this.
#
# PYTHON=... names the interpreter; otherwise the first of the usual names that really runs as 3.11 or newer is taken
# (a name alone proves nothing: version managers leave shims that only fail). Whatever goes wrong is one sentence;
# pip's own words are in .venv/setup.log. The stamp is written last, so an interrupted set-up is simply done again.
set -eu
cd "$(dirname "$0")/.."

venv=.venv
log=$venv/setup.log
stamp=$venv/setup.done

say() { printf 'setup: %s\n' "$*"; }
fail() { say "$*" >&2; exit 1; }

runs_as_3_11() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1; }
makes_venvs() { "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; }

# Set $python, or say what is there instead.
find_python() {
    if [ -n "${PYTHON:-}" ]; then
        set -- "$PYTHON"
    else
        set -- python3.13 python3.12 python3.11 python3 python
    fi
    without_venv='' found=''
    for candidate in "$@"; do
        if runs_as_3_11 "$candidate"; then
            if makes_venvs "$candidate"; then
                python=$candidate
                return
            fi
            without_venv=$candidate
        elif version=$("$candidate" --version 2>/dev/null); then
            found="$version ($candidate)"
        fi
    done
    hint='or name another: make setup PYTHON=/path/to/python3.11'
    [ -z "$without_venv" ] || fail "$without_venv has no venv module: install it (on Debian: python3-venv), $hint"
    fail "Python 3.11 or newer is needed, but found ${found:-no working $*}: install one, $hint"
}

make_venv() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1 && runs_as_3_11 "$venv/bin/python"; then
        return
    fi
    find_python
    say "making $venv with $("$python" --version) ($(command -v "$python"))"
    rm -rf "$venv"
    mkdir "$venv" 2>/dev/null || fail "cannot make $(pwd)/$venv: is the folder writable, and the disk not full?"
    "$python" -m venv "$venv" >"$log" 2>&1 || explain
}

# Say in a few words what pip is at.
latest() {
    if grep -q '^Installing collected packages' "$log"; then
        echo 'unpacking what was downloaded'
    else
        grep -v '^ *WARNING' "$log" | tail -n 1 | cut -c 1-90
    fi
}

# Run pip in the background and show every ten seconds what it is at, so that a long download is not silent.
install() {
    say 'installing the pinned packages; the first time this downloads a few GB'
    "$venv/bin/python" -m pip install --no-input --progress-bar off --disable-pip-version-check \
        --constraint constraints.txt --editable '.[dev]' >"$log" 2>&1 &
    pip=$!
    trap 'kill "$pip" 2>/dev/null; fail "interrupted: run it again to go on"' INT TERM HUP
    seconds=0
    while kill -0 "$pip" 2>/dev/null; do
        sleep 1
        seconds=$((seconds + 1))
        if [ $((seconds % 10)) -eq 0 ]; then
            printf '  %3d s  %s\n' "$seconds" "$(latest)"
        fi
    done
    wait "$pip" || explain
    trap - INT TERM HUP
}

# Turn the log of a failed step into one sentence.
explain() {
    if grep -qiE 'no space left|disk quota' "$log" || [ ! -s "$log" ]; then
        reason='the disk is full: the packages need about 8 GB here and 2 GB in the temporary folder'
    elif grep -qiE 'NewConnectionError|NameResolution|name resolution|establish a new connection|network is unreachable|timed out|ProxyError|CERTIFICATE_VERIFY' "$log"; then
        reason='the package index cannot be reached: check the network (or the proxy) and run it again'
    else
        reason=$(grep -E '^(ERROR|Error)' "$log" | tail -n 1)
        reason=${reason:-"pip stopped without giving a reason"}
    fi
    fail "$reason (log: $log)"
}

make_venv
rm -f "$stamp"
install
: >"$stamp" || fail "cannot write $stamp: is the disk full?"
say "done: $venv is ready"
