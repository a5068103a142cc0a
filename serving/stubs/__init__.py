"""Generated from proto/ by scripts/stubs; never edited by hand."""
