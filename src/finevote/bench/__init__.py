"""What the classifier costs, measured beside its opponents on the machine at hand."""
