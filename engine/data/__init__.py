"""Data: what training and evaluation read, and the batches made of it.

sources/            one reader for each data set's own layout -> image table
splits.py           names of splits, draws by patient, leakage, label fractions
weak.py             labels -> sentences
reports.py          reports as data sets store them -> the text that is read
entities.py         a text -> its entities, as character spans and as one number per token
texts.py            every text tokenised and tagged once
store.py            all images as squares of 8-bit grey in one memory map; build_store.py fills it
dicom_folder.py     folders of DICOM -> image table and store
pretrain_data.py    store, texts and entities of a pretraining run, made once and kept
finetune_data.py    labelled images of a fine-tuning run
batches.py          the batch of a step, and random views of its images
"""
