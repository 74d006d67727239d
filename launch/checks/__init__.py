"""What ``launch/doctor.py`` looks at: software, GPUs, data sets, disk, Slurm."""
