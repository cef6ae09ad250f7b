"""General building blocks that know nothing of the product."""
