"""What every job needs: user errors, atomic files, run folders, processes, logs, provenance."""
