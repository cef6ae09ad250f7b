"""The app inbox: messages to read later."""
