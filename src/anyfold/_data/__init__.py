"""Shared read-only objects, used by the caller and by the workers."""
