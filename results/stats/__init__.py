"""What scores are worth: metrics, their intervals, tests between runs. Knows of neither tables nor figures."""
