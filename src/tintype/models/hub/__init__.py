"""The model hub: what is fetched from it, and what its cache holds."""
