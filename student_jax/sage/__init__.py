"""SAGE: what decides where to look, what to spend, whom to believe and when to stop."""
