"""In-app messages: which message to show for an event, and what became of it."""
