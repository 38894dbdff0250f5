"""Virtual machines: QEMU processes that outlive the daemon."""
