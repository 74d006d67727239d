"""A real Slurm on one machine, for tests and for trying things out: Debian's packages, no mock.

Standard library only: it must run before any environment exists. ``layout`` says where things
are, ``packages`` installs, ``configuration`` writes what Slurm reads, ``processes`` finds and ends
what runs, ``clients`` asks, ``daemons`` starts each daemon, ``place`` guards the folder and finds
ports, ``cluster`` has the verbs and ``command`` what is typed.
"""
