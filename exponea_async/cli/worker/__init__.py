"""The command ``exponea-async worker``: uploads what other processes have recorded."""
