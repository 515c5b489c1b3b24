"""Metrics, protocols and tables: how well a system deblurs, measured the same way for all of them."""
