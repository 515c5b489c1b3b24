"""Reading, writing and batching images."""
