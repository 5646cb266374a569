"""Generated from proto/pagestore/v1/pagestore.proto by `make proto`; a test holds the two together."""
