"""What an operator sees: logs."""
