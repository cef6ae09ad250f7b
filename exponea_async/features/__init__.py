"""
The rooms: what can be tracked. None imports another.
"""
