"""Jupyter kernels on remote machines over plain OpenSSH, without a lost line of output.

The way from laptop to kernel, one package per step:
``provisioner`` -> ``standin`` -> ``hub`` -> ``ssh`` | ``agent`` -> the kernel,
with ``link`` (the lossless protocol) and ``wire`` (its payloads) on both sides of the bar.
Nothing is imported here: the code runs on hosts, where every millisecond of start-up counts.
"""
