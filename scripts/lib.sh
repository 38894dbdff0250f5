# shellcheck shell=bash disable=SC2034,SC2154
# Set-up shared by the scripts: Debian packages, then a Python environment from the lock files.
# Sourced by bash with -euo pipefail; expects `root`, the top of the repository.

say() { printf '%s\n' "$*" >&2; }

base_packages=(ca-certificates gcc libsystemd-dev pkg-config python3 python3-dev python3-venv util-linux)
network_packages=(iproute2 nftables procps)
machine_packages=(busybox-static cpio dosfstools e2fsprogs fdisk kmod mtools qemu-system-x86 qemu-utils syslinux syslinux-common)

# need_packages NAME...: install what is missing as root; without root, say the one line that does.
need_packages() {
  local missing=() name
  for name in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    say "cannot go on: ${#missing[@]} Debian packages are missing; install them with"
    say "  sudo apt-get install --yes --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "installing Debian packages: ${missing[*]}"
  local log
  log=$(mktemp)
  # A policy file keeps packages from starting their services: the tests start what they need themselves.
  if ! { [ -e /usr/sbin/policy-rc.d ] || no_services; } ||
    ! apt_get "$log" update || ! apt_get "$log" install --yes --no-install-recommends "${missing[@]}"; then
    services_again
    tail -n 20 "$log" >&2
    say "cannot install the packages: see above"
    exit 1
  fi
  services_again
  rm -f "$log"
}

apt_get() {
  local log=$1
  shift
  DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1
}

no_services() {
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
  policy_made=yes
}

services_again() {
  [ "${policy_made:-no}" = no ] || rm -f /usr/sbin/policy-rc.d
  policy_made=no
}

# python_environment: .venv as the lock files say, made anew when they change; sets `python`.
python_environment() {
  local stamp lock
  python=$root/.venv/bin/python
  stamp=$(cat "$root"/requirements-build.lock "$root"/requirements-dev.lock "$root/pyproject.toml" | sha256sum)
  stamp="$stamp $(/usr/bin/python3 --version)"
  exec {lock}>"$root/.venv.lock"
  flock "$lock"
  if [ "$(cat "$root/.venv/stamp" 2>/dev/null)" != "$stamp" ]; then
    say "setting up Python (about a minute)"
    rm -rf "$root/.venv"
    /usr/bin/python3 -m venv "$root/.venv"
    pip_install --requirement "$root/requirements-build.lock" --require-hashes
    pip_install --requirement "$root/requirements-dev.lock" --require-hashes --no-build-isolation
    pip_install --no-deps --no-build-isolation --editable "$root"
    printf '%s\n' "$stamp" >"$root/.venv/stamp"
  fi
  exec {lock}>&-
}

pip_install() {
  local log
  log=$(mktemp)
  if ! "$root/.venv/bin/python" -m pip install --disable-pip-version-check --no-input "$@" >"$log" 2>&1; then
    tail -n 20 "$log" >&2
    say "cannot set up Python: see above"
    exit 1
  fi
  rm -f "$log"
}
