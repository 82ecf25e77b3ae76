"""Pictures of what a model saw, voted for and answered."""
