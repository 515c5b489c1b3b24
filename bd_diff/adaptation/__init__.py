"""Learning the blur of unpaired photographs: what blur they have, training for it, and whether it helped."""
