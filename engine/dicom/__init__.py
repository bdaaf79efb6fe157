"""DICOM in: which files, what their headers say, and one grey picture from each, without ever trusting one of them.

The way of a file, by modules (README.md has a word on each of them):

    inputs, find             what the user names -> files that are worth opening
    remembered, contents     is its content known from an earlier run
    workers, sandbox         if not, a child process under limits reads it; a crash costs that process, and one file its score
    reader                   bytes -> Reading, a step after the other:
        kinds                    DICOM, a plain picture (picture), or something else
        outline                  where the elements lie, before any parser sees a value
        header                   typed values of those that matter
        policy, selection        a reason why not, flags
        pixels                   transfer syntax -> stored values; codestream, decoders and second do the work
        grey                     stored values -> one 8-bit picture, bone bright; tone has the order of the steps
        burned, likeness         flags by what the picture shows
    reading, gathered        duplicates and conflicts between files; rows of the results
"""
