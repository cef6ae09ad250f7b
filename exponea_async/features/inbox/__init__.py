"""The app inbox: messages that stay available until they expire."""
