"""The one door for every front: requests in, events out."""
