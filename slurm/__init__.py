"""From "run this" to a cluster: profiles, sbatch text, submission, one launcher per node, requeue, status.

Nothing in this package imports torch or ray: what runs on a login node must answer at once. The programs it
starts (torchrun, ray, the training modules) are named by string and run as processes of their own.
"""
