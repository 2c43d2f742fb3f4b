"""The half of the local sandbox that runs apart from the trainer, in an interpreter of its own (see __main__.py).

Nothing here imports aem_swe or anything outside the standard library, and the package never imports this folder:
`LocalSandboxes` starts it as a program. Two kinds of process live here:

    zygote     trusted, one per trainer: builds the file system that all sandboxes share, clones one PID 1 per sandbox
    PID 1      a small server inside its sandbox: runs commands, reads and writes files, reports what changed
"""
