"""What to run: pure functions and frozen values that know no executor."""
