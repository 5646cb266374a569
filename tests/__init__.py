"""The tests: `sql/` features, `model/` state machines, `process/` real processes, `checker/` what judges them."""
