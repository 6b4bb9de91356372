"""Where work runs: the protocol, and one small file per backend."""
