"""The audit of a data set: what is twice in it, odd, missing, or likely labelled wrong."""
