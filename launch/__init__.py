"""What people type; each command is a submitit job, or runs in this process."""
