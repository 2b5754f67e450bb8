"""Networks that make pictures larger, read from the files that people have of them."""
