"""The nodes of a cluster joined: messages on the wire, links, and the Raft groups a node hosts."""
