"""Content blocks: the content of a placeholder, and what became of it."""
