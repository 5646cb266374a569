"""The service at the level of messages: what a client of its own making could send."""
