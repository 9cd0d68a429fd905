"""From records to the rows of a leaderboard: cells, intervals, comparisons, published numbers beside them."""
