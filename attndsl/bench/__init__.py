"""A program beside its peers, in one run on the same inputs: `attndsl bench`.

flex      FlexAttention's functions from a program's score and mask
peers     who a program can be compared with, and what each of them can express
run       inputs, exact results, times
apart     the same with a process for each, so that nobody holds up the others
together  what a peer's first call compiles, side by side
plot      rates against length, with the machine's limits
"""
