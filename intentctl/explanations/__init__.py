"""Explanations of ``intentctl explain``: which words of a document speak for a label and which against it."""
