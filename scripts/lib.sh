# shellcheck shell=bash disable=SC2034,SC2154
# Set-up shared by the scripts: Debian packages, then a Python environment from the lock files.
# Sourced by bash with -euo pipefail; expects `root`, the top of the repository.

say() { printf '%s\n' "$*" >&2; }

base_packages=(ca-certificates gcc libsystemd-dev pkg-config python3 python3-dev python3-venv util-linux)
network_packages=(iproute2 nftables procps)
machine_packages=(busybox-static cpio dosfstools e2fsprogs fdisk kmod mtools ovmf qemu-system-x86 qemu-utils syslinux syslinux-common)

# need_packages NAME...: install what is missing as root; without root, say the one line that does.
need_packages() {
  local missing=() name
  for name in "$@"; do
    [[ " ${missing[*]} " == *" $name "* ]] ||
      [ "$(dpkg-query -W -f '${db:Status-Status}' "$name" 2>/dev/null)" = installed ] || missing+=("$name")
  done
  [ ${#missing[@]} -eq 0 ] && return
  if [ "$(id -u)" -ne 0 ]; then
    say "cannot go on: ${#missing[@]} Debian packages are missing; install them with"
    say "  sudo apt-get update && sudo apt-get install --yes --no-install-recommends ${missing[*]}"
    exit 1
  fi
  say "installing Debian packages (a minute or two): ${missing[*]}"
  local log
  log=$(mktemp)
  trap services_again EXIT
  no_services
  if ! apt_get "$log" update || ! apt_get "$log" install --yes --no-install-recommends "${missing[@]}"; then
    tail -n 20 "$log" >&2
    say "cannot install the packages: see above, or $log for all of it"
    exit 1
  fi
  keep_services_off "${missing[@]}"
  services_again
  trap - EXIT
  rm -f "$log"
}

# keep_services_off NAME...: what these packages brought does not start at the next boot either.
keep_services_off() {
  command -v systemctl >/dev/null || return 0
  local units
  mapfile -t units < <(dpkg -L "$@" 2>/dev/null | sed -n 's|^\(/usr\)\?/lib/systemd/system/\([^/@]*\.service\)$|\2|p')
  [ ${#units[@]} -eq 0 ] || systemctl --root=/ --quiet disable "${units[@]}" >/dev/null 2>&1 || true
}

apt_get() {
  local log=$1
  shift
  DEBIAN_FRONTEND=noninteractive apt-get -q -o DPkg::Lock::Timeout=300 "$@" </dev/null >>"$log" 2>&1
}

# A policy file keeps packages from starting their services: the tests start what they need themselves.
no_services() {
  [ ! -e /usr/sbin/policy-rc.d ] || return 0
  policy_made=yes
  printf '#!/bin/sh\nexit 101\n' >/usr/sbin/policy-rc.d
  chmod 755 /usr/sbin/policy-rc.d
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
    say "cannot set up Python: see above, or $log for all of it"
    exit 1
  fi
  rm -f "$log"
}
