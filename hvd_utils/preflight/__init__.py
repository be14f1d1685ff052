"""Checks on all ranks, before a job, of what would go wrong in it: the parts.

Every check collects facts on each rank as plain values, and a pure function on rank 0 judges them.
Ranks answer rank 0 one by one: no report waits for a rank that is gone. What may crash or hang
(torch, Horovod, DALI, the data's file system) runs in a child process; the rest needs no torch.
"""
