"""Results, and the page that is written from them."""
