"""Several runs averaged into one classifier, and what that gains."""
