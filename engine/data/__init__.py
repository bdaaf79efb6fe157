"""What a run learns from: images, words, and the batches made of them.

sources/       one file per kind of data set -> image table
weak.py        labels -> weak pairs: sentences of our own
reports.py     reports as data sets store them -> the text that is read
entities.py    a text -> its entities, as character spans and as one number per token
texts.py       every text tokenised and tagged once
pictures.py    a picture file -> one square of 8-bit grey
store.py       all squares in one memory map
prepared.py    all of these made once and kept
batches.py     the batch of a step, and random views of its pictures
"""
