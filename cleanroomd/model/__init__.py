"""Frozen types that every room shares; standard library only."""
