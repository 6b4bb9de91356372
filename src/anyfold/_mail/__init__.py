"""The mailbox: what workers tell the caller while they work; used by both sides."""
