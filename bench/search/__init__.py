"""Which trials of a sweep run next, and which stop early."""
