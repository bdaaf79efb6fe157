"""Training in general: a loop of plain steps, optimizers and schedules, checkpoints. Knows no CLIP and no DICOM.

loop.py        batches and losses in, `Step` and `Saved` out
feed.py        batches made ahead of time by one thread, pinned and moved to the device
seeds.py       one generator per (seed, step, purpose): nothing random has a state to save
optimizer.py   SGD and AdamW, what is decayed, the learning rate of every step
blocks.py      transformer blocks compiled, or computed twice instead of kept
distributed.py the processes that torchrun starts: who prepares and writes, how they stop together
parallel.py    one module on all of them: DDP or FSDP2
checkpoint.py  folders that are whole or absent; resume to the bit
"""
