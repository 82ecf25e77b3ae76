"""What is minimised, as pure functions."""
