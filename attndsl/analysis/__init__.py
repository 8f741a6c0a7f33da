"""Facts about cascades, by pure functions.

ranks                                     what each rank is for: batch, sequence or feature
sweeps, fusion                            how many sweeps a program takes, as written and after fusion
separability, following, algebra, probe   whether a sum can follow what its terms depend on
linearity, anchors, reach                 which causal sums carry over from chunk to chunk, and by what
intervals                                 which stretch of a sequence a domain leaves to a tile
scans, blocks                             sums along a row, ranks cut in blocks
exponents, stabilise                      what stands in exponents, and which of these lack a maximum
dropped                                   conditions that a sum loses
score_mask                                whether FlexAttention could express a program
"""
