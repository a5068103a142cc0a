"""The asyncio client: a channel that generated stubs take."""
