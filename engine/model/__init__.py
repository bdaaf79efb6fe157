"""Model: towers, masks, losses, bundles.

mmclip.py           the MMCLIP model and its losses; towers.py, decoders.py, losses.py: its components
attmim.py           attention-guided masked image modelling: where image masks are drawn
entmlm.py           entity-driven masked language modelling: where text masks are drawn
grad_cache.py       large contrastive batches in micro-batches
zero_shot.py        image and prompt features -> scores
classifier.py       fine-tuning; head.py: a classifier's head; linear_probe.py: logistic regression on frozen features
preprocessing.py    image size and normalisation that belong to the weights
tokenizer.py        tokenizers trained on a run's own texts; clip_tokenizer.py: CLIP's vocabulary
init.py             the model that a pretraining run starts from
bundle.py           a CLIP model with its tokenizer and preprocessing; bundle_folder.py, weights.py: its files; cards.py: model cards
mask_diagnostics.py numbers and figures of masks; mask_monitor.py takes them during a run
flops.py            floating point operations of a step
imports/            weights of other libraries
"""
