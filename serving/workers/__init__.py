"""Resources that the worker processes of one service share: memory, ports and connections."""
