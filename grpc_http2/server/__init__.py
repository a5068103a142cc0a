"""The asyncio server."""
