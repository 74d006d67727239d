"""Parts of every job: errors, atomic files, run folders, processes, checkpoints, provenance."""
