"""Content blocks: the content of placeholders in an application, and the events about it."""
