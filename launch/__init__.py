"""The commands; each is a submitit job, or runs in this process."""
