"""Models and releases as they are managed: terms, messages, the client, what is on the volume and how it goes."""
