"""General building blocks, and the validators of settings."""
