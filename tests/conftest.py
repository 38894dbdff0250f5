"""Settings for all layers."""

from hypothesis import settings

# A test says what is right, never how fast this machine is today.
settings.register_profile("quiet", deadline=None)
settings.load_profile("quiet")
