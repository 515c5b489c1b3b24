"""How blur is found in a photograph: spectrum, kernel search, and which of several readings to believe."""
