"""How alike a run's layers are, how its budget moved, and which layers and heads carry its votes."""
