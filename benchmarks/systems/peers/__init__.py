"""Third-party servers as systems."""
