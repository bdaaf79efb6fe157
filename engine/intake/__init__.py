"""Intake: paths -> read results, one for every file, made in sandboxed child processes.

files.py            inputs -> the files to read
containers.py       file kinds by their first bytes; members of zip archives
png_jpeg.py         a PNG or JPEG file -> one grey image
reader.py           the bytes of one file -> a read result
read_result.py      outcome, reason, flags, codes, identifiers and the image of one file
duplicates.py       duplicates and conflicts of identity among the files of a run
workers.py          child processes under limits of time, memory and size: a crash costs one file
sandbox.py          the worker's main loop; seccomp.py: its filter of system calls; limits.py: limits for one file
ipc.py              messages between the two; shared_digests.py: the hashes of known files, shared with children
"""
