"""A real, private Slurm of virtual nodes on one machine: Debian's packages, no mock.

``packages`` installs Slurm, ``layout`` says where things are, ``configuration`` writes what Slurm
reads, ``daemons`` starts each daemon, ``cluster`` is the whole, and ``__main__`` its commands.
"""
