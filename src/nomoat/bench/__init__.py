"""What this machine can do, and how near a model comes to it."""
