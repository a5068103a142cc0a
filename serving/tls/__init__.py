"""Certificates of servers: read, checked, and replaced while they serve."""
