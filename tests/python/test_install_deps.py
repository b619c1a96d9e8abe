"""tools/install-deps.sh, with made-up commands: what it does when apt's locks are taken."""

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "install-deps.sh"
pytestmark = pytest.mark.skipif(not SCRIPT.exists(), reason="the tools are not here")

# What apt 2.6 says, in the order of its locks.
TAKEN = {
    "update": """Could not get lock /var/lib/apt/lists/lock. It is held by process 7 (apt-get)
E: Unable to lock directory /var/lib/apt/lists/""",
    "install": """Could not get lock /var/lib/dpkg/lock-frontend. It is held by process 7 (dpkg)
E: Unable to acquire the dpkg frontend lock, is another process using it?""",
}

# Fails so often with a message, then succeeds. pkg-config finds what there was an installation of.
APT = """#!/bin/sh
echo "$2" >>"$HERE/calls"
if [ "$(grep -c "$2" "$HERE/calls")" -le "$(cat "$HERE/$2.failures")" ]; then
    cat "$HERE/$2.says" >&2
    exit 100
fi
[ "$2" != install ] || touch "$HERE/installed"
"""


@pytest.fixture
def install(tmp_path):
    """Return a function that runs the script; calls of apt-get fail so often, saying that."""
    commands = {
        "apt-get": APT,
        "sudo": '#!/bin/sh\nexec "$@"\n',
        "pkg-config": '#!/bin/sh\n[ -e "$HERE/installed" ]\n',
        "cc": "#!/bin/sh\ncat >/dev/null\n",
        "sleep": '#!/bin/sh\necho sleep >>"$HERE/calls"\n',
    }
    for name, text in commands.items():
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(failures, says=TAKEN):
        for call in TAKEN:
            (tmp_path / f"{call}.failures").write_text(str(failures.get(call, 0)))
            (tmp_path / f"{call}.says").write_text(f"E: {says[call]}\n")
        environment = os.environ | {
            "HERE": str(tmp_path),
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "CC": "cc",
        }
        done = subprocess.run(
            ["sh", SCRIPT, "c"], env=environment, capture_output=True, text=True, timeout=60
        )
        return done, (tmp_path / "calls").read_text().split()

    return run


@pytest.mark.parametrize("call", TAKEN)
def test_waits_for_a_lock(install, call):
    done, calls = install({call: 3})
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Waiting") == 1
    assert "It is held by process 7" in done.stderr
    assert calls.count(call) == 4
    assert calls.count("sleep") == 3
    assert calls[-1] == "install"


def test_does_not_wait_for_ever(install):
    done, calls = install({"install": 10**6})
    assert done.returncode == 1
    assert "lock-frontend" in done.stderr.splitlines()[-2]
    assert calls.count("sleep") == 120


def test_fails_at_once_for_another_reason(install):
    says = dict.fromkeys(TAKEN, "Unable to locate package libfftw3-dev")
    done, calls = install({"install": 1}, says)
    assert done.returncode == 1
    assert done.stderr == "E: Unable to locate package libfftw3-dev\n"
    assert calls == ["update", "install"]


def test_lists_that_cannot_be_updated_need_not_matter(install):
    done, calls = install(
        {"update": 1}, dict.fromkeys(TAKEN, "The repository has no Release file.")
    )
    assert done.returncode == 0, done.stderr
    assert calls == ["update", "install"]
