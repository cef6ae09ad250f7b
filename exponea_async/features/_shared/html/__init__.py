"""The HTML of messages, made safe to embed."""
