"""Both camps, each where it is better: private data it recognises stays here, the rest goes where the user's own duels say."""
