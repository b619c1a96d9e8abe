#!/bin/sh
# Install what pyflow needs from the system and is missing; do nothing when nothing is.
#
#   install-deps.sh c              compiler, pkg-config, FFTW, OpenBLAS
#   install-deps.sh c python       also Python's headers and venv, for the interpreter $PYTHON
#
# With apt-get it installs (through sudo when not root), and waits while another process holds apt's locks, as machines
# do that update themselves in their first minutes; elsewhere it prints what to install and fails.
set -u

python=${PYTHON:-python3}
cc=${CC:-cc}

# Debian's packages that are missing, one a line.
missing() {
    printf '#include <math.h>\nint main(void) { return 0; }\n' | $cc -pthread -x c - -o /dev/null -lm 2>/dev/null ||
        echo build-essential
    if ! command -v pkg-config >/dev/null; then
        echo pkg-config libfftw3-dev libopenblas-dev
    else
        pkg-config --exists fftw3 fftw3f || echo libfftw3-dev
        pkg-config --exists openblas || echo libopenblas-dev
    fi
    case " $* " in *" python "*)
        # A python3.12 beside the system's python3 (3.10, say) has packages named after itself.
        name=$($python -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null) ||
            name=python3
        system=$(/usr/bin/python3 -c 'import sys; print("python%d.%d" % sys.version_info[:2])' 2>/dev/null)
        [ "$name" = "$system" ] && name=python3
        command -v "$python" >/dev/null || echo python3
        header='import os, sysconfig; print(os.path.join(sysconfig.get_path("include"), "Python.h"))'
        [ -f "$($python -c "$header" 2>/dev/null)" ] || echo "$name-dev"
        $python -c 'import ensurepip, venv' 2>/dev/null || echo "$name-venv"
        ;;
    esac
}

packages=$(missing "$@" | tr ' \n' '\n\n' | sort -u | tr '\n' ' ')
[ -z "${packages% }" ] && exit 0

if ! command -v apt-get >/dev/null; then
    cat >&2 <<END
pyflow needs software that is missing here. By Debian's names: $packages
    Fedora:  sudo dnf install gcc make pkgconf-pkg-config fftw-devel openblas-devel python3-devel
    Arch:    sudo pacman -S base-devel pkgconf fftw openblas python
    openSUSE: sudo zypper install gcc make pkg-config fftw3-devel openblas-devel python3-devel
    conda:   conda install -c conda-forge c-compiler make pkg-config fftw openblas python
If it is in an unusual place, set PKG_CONFIG_PATH (libraries), CC (compiler) or PYTHON (interpreter).
END
    exit 1
fi

sudo=
if [ "$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
        echo "As root, type: apt-get install $packages" >&2
        exit 1
    fi
    sudo=sudo
fi
errors=$(mktemp) || exit 1
trap 'rm -f "$errors"' EXIT

# apt-get, tried again every five seconds for ten minutes while it finds a lock taken (that of its lists, of its archives
# or of dpkg: an option of its own makes it wait for the last alone).
apt() {
    tries=0
    until $sudo env LC_ALL=C DEBIAN_FRONTEND=noninteractive apt-get -q "$@" 2>"$errors"; do
        locked=$(grep -E -m 1 'Could not get lock|Unable to (lock|acquire)|is another process using it' "$errors")
        if [ -z "$locked" ] || [ $tries = 120 ]; then
            cat "$errors" >&2
            return 1
        fi
        [ $tries = 0 ] && echo "Waiting up to ten minutes for another process that installs software: $locked" >&2
        tries=$((tries + 1))
        sleep 5
    done
}

echo "Installing $packages"
# A broken entry in the lists of sources need not matter: go on and let the installation decide.
apt update >/dev/null || true
# shellcheck disable=SC2086
apt install -y --no-install-recommends $packages || exit 1

packages=$(missing "$@" | tr ' \n' '\n\n' | sort -u | tr '\n' ' ')
if [ -n "${packages% }" ]; then
    echo "Still missing after the installation: $packages" >&2
    echo "(If $python is not the system's, its headers come from wherever it came from.)" >&2
    exit 1
fi
