"""A trial of faults on the private Slurm.

``runs`` are commands typed there, ``faults`` befall them, ``disturbed`` compares what comes of them
with undisturbed runs, ``others`` are pipelines and arrays, ``table`` shows it all.
"""
