"""The tests: `sql/` features, `model/` state machines, `process/` real processes, `checker/` their judge."""
