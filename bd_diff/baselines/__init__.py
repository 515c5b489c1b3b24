"""The three systems that BD-Diff is compared with."""
