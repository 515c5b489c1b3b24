"""The components of BD-Diff, named as in the figure of the README."""
