"""Devices: what each one remembers, and how it changes."""
