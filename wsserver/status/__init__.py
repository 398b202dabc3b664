"""How the server is, to look at: on a page of the admin port, and in a terminal."""
