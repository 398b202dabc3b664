"""The bus: how the nodes of one installation tell each other what has moved.

A message is a question, not an answer: that something of an account has moved. Who hears of it asks
the database, which alone has the truth, in one read for all accounts that moved (`looking`), ends
the sessions whose tokens are gone, and tells the others of the newest state. So nothing depends on
the order of messages, nor on their coming at all: after any gap (`peers`) a node asks for all
accounts that it serves.

    messages, peers, presence, looking    pure: what is said, by whom, and what follows from it
    node                                  the shell that ties them to the hub, the store and a clock
    transports, postgresql, nats          what carries the messages
"""
