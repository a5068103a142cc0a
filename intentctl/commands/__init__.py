"""One module a command. They import what they need when they run: asking a question must not load torch."""
