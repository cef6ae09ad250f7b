"""
The storage in PostgreSQL, shared by many machines.
"""
