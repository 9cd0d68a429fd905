"""From records to a leaderboard: rows, intervals, comparisons, and published numbers beside them."""
