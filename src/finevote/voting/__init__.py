"""Heads vote, ballots are smoothed, tokens are selected, refined and classified."""
