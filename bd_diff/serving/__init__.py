"""What people run: folders at scale, the page, timing and export."""
