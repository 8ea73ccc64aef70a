"""A real Slurm of several nodes on one machine: network namespaces, munge, slurmctld, slurmdbd on MariaDB, slurmd. Needs root."""
