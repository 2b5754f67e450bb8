"""New words: textual-inversion embeddings, their files, and putting them into a model."""
