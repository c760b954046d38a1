"""Both camps, each where it is better: private data never leaves, and the rest goes where the user's own duels say it should."""
