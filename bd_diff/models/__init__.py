"""The components of BD-Diff, named as in the figure of assets/docs/how-it-works.md."""
