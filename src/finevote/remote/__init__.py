"""Published files, brought to this machine and verified."""
