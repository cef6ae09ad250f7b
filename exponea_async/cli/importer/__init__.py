"""The ``import`` command: events from CSV, JSON lines or fixed-width files."""
