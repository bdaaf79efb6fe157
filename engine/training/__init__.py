"""Training: a loop of plain steps, optimizers and schedules, checkpoints. Knows no CLIP and no DICOM.

loop.py             batches and losses in, `Step` and `Saved` out
prefetch.py         batches loaded ahead of time by one thread, pinned and moved to the device; one generator per (seed, step, purpose)
optimizer.py        SGD and AdamW, which parameters decay, the learning rate of every step
distributed.py      the processes that torchrun starts: which one prepares and writes, how they stop together
parallel.py         one module on all of them: DDP or FSDP2; transformer blocks compiled or recomputed
checkpoint.py       folders that are whole or absent, resume to the bit; checkpoint_files.py: their files
early_stopping.py   validation results, and when to stop
finetuning.py       the plan of a fine-tuning run
monitor.py          throughput, memory and mask diagnostics during a run; tensorboard.py: the same as TensorBoard events
provenance.py       what run.json says of a training run: device, seed, recipe, how it ended
"""
