"""The operating system, the terminal and the file system, as the other packages use them. Imports none of those."""
