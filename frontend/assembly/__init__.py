"""From the settings of the frontend to its objects."""
