"""Models for others: merged, described in a card, pushed to a hub."""
