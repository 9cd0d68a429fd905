"""What lies in a results folder: records, sweep.json, scores of other methods, and where numbers come from."""
