"""A finished classifier over HTTP: the only package that knows a web framework."""
