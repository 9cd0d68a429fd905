"""The process of a trial: how it is started, forked from one that has imported everything, and what it reports."""
