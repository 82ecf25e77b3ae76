"""Vision transformers as layers whose CLS attention can be read."""
