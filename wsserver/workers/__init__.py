"""Many processes that serve one port: a supervisor, and the workers that it starts.

The supervisor (`python -m wsserver.workers`, what `wsserver serve --workers N` becomes) opens the
ports and has the admin port; the workers (`python -m wsserver.workers.worker`) inherit the others.
"""
