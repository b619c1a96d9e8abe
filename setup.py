"""Build the extension module pyflow._core; everything else is in pyproject.toml.

Environment variables
---------------------
PYFLOW_NATIVE=1 : compile for this machine's processor (the result may not run on another).
PYFLOW_WERROR=1 : warnings are errors.
PYFLOW_ARCHIVE : link this libpyflow.a instead of compiling csrc/*.c (the Makefile's way).
PYFLOW_SKIP_EXT=1 : leave the extension out (the Makefile builds it in place afterwards).
"""

import os
import shlex
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from glob import glob

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

# pkg-config name: the package that has it in Debian, Fedora, Arch, conda-forge
LIBRARIES = {
    "fftw3": ("libfftw3-dev", "fftw-devel", "fftw", "fftw"),
    "fftw3f": ("libfftw3-dev", "fftw-devel", "fftw", "fftw"),
    "openblas": ("libopenblas-dev", "openblas-devel", "openblas", "openblas"),
}
PKG_CONFIG = ("pkg-config", "pkgconf-pkg-config", "pkgconf", "pkg-config")
INSTALL = {
    "Debian, Ubuntu": "sudo apt-get install",
    "Fedora": "sudo dnf install",
    "Arch": "sudo pacman -S",
    "conda": "conda install -c conda-forge",
}


def flag(name):
    return os.environ.get(name, "0") not in ("", "0")


def missing(what, packages):
    """Stop with the names of what is missing and the commands that install it."""
    lines = [f"pyflow cannot be built: {what}.", "Install what is missing:"]
    for i, (system, command) in enumerate(INSTALL.items()):
        names = dict.fromkeys(p[i] for p in packages)
        lines.append(f"    {system + ':':16}{command} {' '.join(names)}")
    lines.append("If it is in an unusual place, set PKG_CONFIG_PATH to the folder of its .pc file.")
    raise SystemExit("\n" + "\n".join(lines) + "\n")


def pkg_config(*args):
    command = [*shlex.split(os.environ.get("PKG_CONFIG", "pkg-config")), *args]
    return subprocess.run(command, capture_output=True, text=True)


def library_flags():
    """(compiler flags, linker flags) for FFTW and OpenBLAS."""
    try:
        absent = [name for name in LIBRARIES if pkg_config("--exists", name).returncode]
    except FileNotFoundError:
        missing("pkg-config is not installed", [PKG_CONFIG, *LIBRARIES.values()])
    if absent:
        names = ", ".join(absent)
        missing(f"pkg-config does not find {names}", [LIBRARIES[name] for name in absent])
    cflags = shlex.split(pkg_config("--cflags", *LIBRARIES).stdout)
    libs = shlex.split(pkg_config("--libs", *LIBRARIES).stdout)
    return cflags, libs


class BuildExt(build_ext):
    """Look for the libraries only when something is compiled, and compile files side by side."""

    def build_extension(self, ext):
        import numpy

        cflags, libs = library_flags()
        version = self.distribution.get_version()
        ext.include_dirs += ["csrc", numpy.get_include()]
        ext.define_macros += [("PYFLOW_VERSION", f'"{version}"')]
        ext.extra_compile_args += ["@csrc/cflags", *cflags]  # gcc and clang read flags from a file
        if flag("PYFLOW_NATIVE"):
            ext.extra_compile_args.append("-march=native")
        if flag("PYFLOW_WERROR"):
            ext.extra_compile_args.append("-Werror")
        ext.extra_link_args += [*ext.extra_objects, *libs, "-lm", "-pthread"]
        ext.depends += ext.extra_objects
        ext.extra_objects = []  # placed above: an archive comes before the libraries it needs

        compile_all = self.compiler.compile

        def compile_one(source, **kwargs):
            return compile_all([source], **kwargs)

        def compile_side_by_side(sources, **kwargs):
            with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
                jobs = [pool.submit(compile_one, source, **kwargs) for source in sources]
                return [obj for job in jobs for obj in job.result()]

        self.compiler.compile = compile_side_by_side
        try:
            super().build_extension(ext)
        finally:
            self.compiler.compile = compile_all


def extension():
    sources = sorted(glob("csrc/python/*.c"))
    archive = os.environ.get("PYFLOW_ARCHIVE")
    if not archive:
        sources += sorted(glob("csrc/*.c"))
    return Extension(
        "pyflow._core",
        sources,
        depends=["setup.py", "csrc/cflags", *glob("csrc/**/*.[hi]*", recursive=True)],
        extra_objects=[archive] if archive else [],
        language="c",
    )


if sys.platform == "win32":
    raise SystemExit("pyflow builds on Linux and other POSIX systems, not on Windows (WSL works).")

setup(
    ext_modules=[] if flag("PYFLOW_SKIP_EXT") else [extension()],
    cmdclass={"build_ext": BuildExt},
)
