"""Many questions to one model: each answer kept before anything is done with it, and a bound on what they may cost."""
