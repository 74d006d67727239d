"""Checks of ``launch/doctor.py``: software, GPUs, data sets, disk, Slurm."""
