"""The queue in an SQLite file."""
