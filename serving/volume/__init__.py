"""The shared volume: reads models and releases safely, and writes them so that no reader sees a partial one."""
