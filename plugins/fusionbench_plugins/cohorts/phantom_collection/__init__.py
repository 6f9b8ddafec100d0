"""What may become of a phantom cohort when it is collected: scanners of several sites, files that are lost.

It is done to the files that the generator wrote, by modules of its own, so that a cohort without it keeps its bytes and
its place. `knobs` draws who was seen where and what is lost; `files` rewrites the folder.
"""
