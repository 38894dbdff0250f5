"""The vault: the images that services are restored from. A running service never writes to it."""
