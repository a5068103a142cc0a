"""What ``intentctl explain`` shows: which words of a document speak for a label and which against it."""
