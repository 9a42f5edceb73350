"""Data-parallel training of one model by several processes: ``torchrun … -m fedcore.parallel``.

`schedule` says who sends what when in a ring, `ring` does it, `world` holds the processes together,
`sync` and `server` train. This is the other way to use several machines: all processes may see all
rows. Where they may not, the round (`fedcore.round`) is the way.
"""
