"""The loop, and all that it keeps."""
