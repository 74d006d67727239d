"""What ``tools/slurm_trial.py`` is made of: ``cluster`` asks and hurts a sandbox, ``runs`` are
commands typed there, ``faults`` befall them, ``trials`` tell how each ended, ``table`` shows it.
"""
