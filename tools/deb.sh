#!/bin/sh
# Build a Debian package of pyflow for this machine's Debian (12 or newer) or Ubuntu, from what it packages alone.
#
#   deb.sh [FOLDER]                where the package goes; dist without it
#
# Needs dpkg-dev and the Build-Depends of packaging/debian/control.
set -eu
cd "$(dirname "$0")/.."
target=${1:-dist}
mkdir -p "$target"
target=$(cd "$target" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
version=$(sed -n 's/^version = "\([^"]*\)".*/\1/p' pyproject.toml)
tree=$work/pyflow-sinf-$version

mkdir "$tree"
cp -a LICENSE MANIFEST.in README.md pyproject.toml setup.py csrc pyflow "$tree/"
find "$tree" \( -name '*.so' -o -name __pycache__ \) -prune -exec rm -rf {} +
cp -a packaging/debian "$tree/debian"
cp packaging/check.py "$tree/debian/"
cat >"$tree/debian/changelog" <<END
pyflow-sinf ($version) unstable; urgency=medium

  * See CHANGELOG.md of the sources.

 -- pyflow developers <root@localhost>  $(LC_ALL=C date -R -d "@${SOURCE_DATE_EPOCH:-$(date +%s)}")
END
# setuptools before 77 (Debian 12 has 66) wants the licence as a table.
if [ "$(/usr/bin/python3 -c 'import setuptools; print(setuptools.__version__.split(".")[0])')" -lt 77 ]; then
    sed -i 's/^license = "\(.*\)"/license = { text = "\1" }/; /^license-files/d' "$tree/pyproject.toml"
fi
# What pip would want for the build is not asked for: debian/control says what is, Debian's own NumPy among it. The
# extension is compiled against that one's headers, and so runs on it.
sed -i 's/^requires = .*/requires = ["setuptools", "numpy"]/' "$tree/pyproject.toml"

(cd "$tree" && PATH=/usr/sbin:/usr/bin:/sbin:/bin dpkg-buildpackage -b -us -uc)
cp "$work"/*.deb "$target/"
ls -l "$target"/*.deb
