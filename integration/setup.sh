#!/bin/sh
# What the demo and the tests need of the system, installed when it is missing: as root on Debian by apt-get, else said.
# Quick and silent when nothing is to be done.  Usage: setup.sh PYTHON
set -eu
python=$1
missing=

"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
    echo "setup: error: $python: Python 3.11 or newer is needed" >&2
    echo "hint: make PYTHON=/path/to/python3.11" >&2
    exit 78
}
"$python" -c 'import ensurepip, venv' 2>/dev/null || missing="$missing python3-venv"
command -v ssh >/dev/null && command -v ssh-keygen >/dev/null || missing="$missing openssh-client"
command -v unshare >/dev/null || missing="$missing util-linux"
command -v curl >/dev/null || missing="$missing curl"
command -v git >/dev/null || missing="$missing git"
# Programs for root stand where a user's PATH does not lead.
PATH=$PATH:/usr/sbin:/sbin
command -v iptables-legacy-restore >/dev/null && command -v iptables-nft-restore >/dev/null || missing="$missing iptables"
command -v nft >/dev/null || missing="$missing nftables"
command -v ip >/dev/null || missing="$missing iproute2"
command -v dash >/dev/null || missing="$missing dash"
command -v busybox >/dev/null || missing="$missing busybox"
command -v shellcheck >/dev/null || missing="$missing shellcheck"
command -v h2load >/dev/null || missing="$missing nghttp2-client"
command -v cc >/dev/null || missing="$missing gcc libc6-dev"
command -v etcd >/dev/null || missing="$missing etcd-server"
# The engine of the container tests, unless another one is here already; their base image is made by mmdebstrap.
command -v dockerd >/dev/null || [ -S /var/run/docker.sock ] || missing="$missing docker.io"
command -v docker-compose >/dev/null || docker compose version >/dev/null 2>&1 || missing="$missing docker-compose"
command -v mmdebstrap >/dev/null || missing="$missing mmdebstrap"

[ -n "$missing" ] || exit 0
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "setup: installing$missing" >&2
    DEBIAN_FRONTEND=noninteractive
    export DEBIAN_FRONTEND
    apt-get -qq update
    # shellcheck disable=SC2086 # a list of words
    apt-get -qq install --yes --no-install-recommends $missing >/dev/null
else
    echo "setup: missing:$missing; install these packages for the tests that need them" >&2
    case $missing in *python3-venv*) exit 78 ;; esac
fi
