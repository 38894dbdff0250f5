"""The recovery plan: from a TOML file of the stager's to checked, frozen model types."""
