"""DICOM in: which files, what their headers say, and one grey picture from each, without ever trusting one of them.

find.py       which files of a folder are worth opening (no file is opened here)
kinds.py      what kind of file some bytes are: DICOM, a plain picture, an archive
policy.py     the closed list of reason codes and flags, and what a header must say
selection.py  which pictures are scored: frontal chest radiographs, told by their tags
outline.py    where the elements of a data set lie: lengths, order and nesting checked before anything is parsed
header.py     the typed header: every value validated before it is used
codestream.py what a compressed picture claims about itself, read without decoding it
pixels.py     transfer syntax -> stored values, reduced where the codec can
grey.py       stored values -> one 8-bit picture, bone bright (the order of PS3.3 C.11, C.7.6.3.1.5)
likeness.py   whether the picture looks like an upright frontal chest, a lateral, or no chest
polarity.py   how much an upright frontal chest looks inverted
picture.py    plain PNG and JPEG files named by an image table
reading.py    what one file came to (Reading); duplicates and conflicts between files (Registry)
limits.py     what one file may cost
reader.py     one file -> Reading, in the process that calls it
sandbox.py    the child process: reads one file at a time under limits, knows nothing else
workers.py    disposable child processes with time and memory limits; the order of the input is kept
"""
