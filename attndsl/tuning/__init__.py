"""The autotuner: which configurations a kernel may run with, which of them is fastest, and where that is kept.

space      configurations of a kernel, pruned by arithmetic and ordered by a model of their time
problem    what is tuned: a pass of a program at one size, as files that processes without the compiler can read
child      a process that may die or hang without harming its parent
compiling  such a process, which compiles candidates; it needs no GPU
measuring  such a process, which runs candidates, compares their results and times them
search     successive halving within a budget
database   what was found, kept in files that survive concurrent writers, faults and later versions
"""
