"""Training data from a teacher: new instructions in the manner of Alpaca, or labels for texts of yours."""
