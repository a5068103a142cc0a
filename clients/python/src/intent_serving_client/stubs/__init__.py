"""Generated from the .proto files by scripts/stubs; never edited by hand."""
