"""Statistical inference on a table of scores: error of differences, planned questions, and their answers in words."""
