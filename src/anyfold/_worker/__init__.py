"""What happens on a worker, the same on every backend."""
