"""Several runs together: compared on the same images, swept over seeds and settings, taken apart by ablation."""
