"""What an index of images costs: its opening, its memory and a step's lookup, up to 10⁹ images."""
