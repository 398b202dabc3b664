"""What is wrong with a server, its machine and what it needs: the command `wsserver doctor`."""
