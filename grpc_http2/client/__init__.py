"""The asyncio client: a channel for generated stubs."""
