"""The appliance's user space under a real systemd: a small Debian root, made once, booted in a container of its own."""
