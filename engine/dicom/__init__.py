"""DICOM: bytes -> one grey image, or the reason why there is none. Imports nothing else of mmclip.

elements.py         tags, lengths and nesting of a data set, before any parser sees a value
header.py           typed values of the attributes that matter; lookup_table.py: one item of a LUT sequence
reasons.py          the closed list of reason codes and flags, and what may are in public tables
checks.py           what a header must say before its pixels are read
selection.py        which images are scored: modality, SOP class, body part, view
codestream.py       what a compressed stream claims about itself, and whether it is whole
jpeg_integrity.py   whether a JPEG decoder lost its way in a damaged stream
decoders.py         one decoder for each kind of stream; gdcm.py: the second decoder, used where the first refuses
pixels.py           transfer syntax -> stored values
windowing.py        modality LUT, VOI LUT or window, polarity: the map from stored values to grey
grey.py             stored values -> one 8-bit image, bone bright
resample.py         resampling filters
view_check.py       flags by the image itself: turned, mirrored, inverted, lateral, no chest
burned_in_text.py   text burned into the pixels
reader_version.py   the version of what reading gives, with its history: part of the key of every cache
"""
