"""The life cycle of a client: its components, how they are opened and closed, and what happens to them after a fork."""
