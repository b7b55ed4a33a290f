"""`refstream bench`: how fast it is, measured on real Kafka and Valkey with seeded workloads.

Load is generated and published before a clock starts, or by another process. `workload.py` makes W1, `lab.py` starts
what is measured, `folding.py` watches it, `result.py` is what comes out.
"""
