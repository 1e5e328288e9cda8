"""The parts of bench/gpu_check.py, one file each.

A part is a function of a Session that returns an Outcome, or raises Failed or NotAvailable. What it
measures with torch runs in a process of its own, `python -m gpu.<part>`, so that a crash or a hang
ends that part alone; such a process prints one JSON object per line.
"""
