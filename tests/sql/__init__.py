"""SQLite's features on mv databases, each compared with what a plain file gives."""
