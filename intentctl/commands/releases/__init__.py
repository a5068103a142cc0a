"""Commands that publish, release and withdraw versions."""
