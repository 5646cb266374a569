"""Tests with real processes that meet in one database, are killed, and run out of disk."""
