"""Questions with known answers, asked of two models: who is better, and how sure that is."""
