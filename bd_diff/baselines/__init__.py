"""The three systems BD-Diff is measured against."""
