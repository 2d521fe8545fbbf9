"""Writers of small images and vectors, well-formed or not."""
